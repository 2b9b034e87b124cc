#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {

/// Work in stages, each of independent items; all items of a stage are computed before the next stage begins. Threads
/// are called once for all stages. Between two of them they wait for each other without sleeping, at first, which takes
/// a fraction of a microsecond where a parallel loop of its own for each stage takes several.
class Stages {
public:
    explicit Stages(size_t threads) : m_threads(threads) {}

    size_t threads() const { return m_threads; }

    /// Adds a stage of `items` items, after those that were added before. Each thread begins with its own share of
    /// neighbouring items, which is the same for all stages with as many items.
    void add(size_t items, std::function<void(size_t)> compute);

    /// Computes all stages, on the threads of this arena. A thread that comes late, or never, delays no other one by
    /// more than the item that it computes.
    void run();

private:
    struct Stage {
        Stage(size_t count, size_t threads, std::function<void(size_t)> function)
            : items(count), compute(std::move(function)), shares(threads), left(static_cast<int>(count)) {}

        size_t items;
        std::function<void(size_t)> compute;
        std::vector<TaskShare> shares;
        alignas(64) std::atomic<int> left;  // items that are not computed yet
    };

    void work(size_t thread);
    void compute_items(Stage& stage, size_t thread);
    static void finish(Stage& stage, size_t computed);

    size_t m_threads;
    std::deque<Stage> m_stages;
    std::atomic<bool> m_failed{false};
};

}  // namespace dynamic_tinybert
