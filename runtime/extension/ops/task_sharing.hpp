#pragma once

#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dynamic_tinybert {

/// The tasks first ... end - 1 that one thread begins with. It takes them from the front; other threads take from the
/// back.
class TaskShare {
public:
    /// Not thread-safe; comes before all calls of `take`.
    void assign(uint32_t first, uint32_t end) { m_left.store(packed(first, end), std::memory_order_relaxed); }

    bool take_first(size_t& task) {
        return take(task, [](uint32_t& first, uint32_t&) { return first++; });
    }

    bool take_last(size_t& task) {
        return take(task, [](uint32_t&, uint32_t& end) { return --end; });
    }

private:
    static uint64_t packed(uint32_t first, uint32_t end) { return uint64_t{end} << 32 | first; }

    /// Relaxed, because tasks are independent of each other: only that each is taken once matters here.
    template <typename Choose>
    bool take(size_t& task, const Choose& choose) {
        uint64_t left = m_left.load(std::memory_order_relaxed);
        for (;;) {
            uint32_t first = static_cast<uint32_t>(left), end = static_cast<uint32_t>(left >> 32);
            if (first >= end)
                return false;
            task = choose(first, end);
            if (m_left.compare_exchange_weak(left, packed(first, end), std::memory_order_relaxed))
                return true;
        }
    }

    alignas(64) std::atomic<uint64_t> m_left{0};  // on a cache line of its own
};

/// Runs compute(task) for tasks 0 ... tasks - 1 on the threads of this arena. Each thread begins with a share of its
/// own, neighbouring tasks that are the same at every call, so that it finds their weights in its cache. A thread that
/// has finished its share takes single tasks from the others: one that shares its core with another process, or runs on
/// a slower core, delays the others by one task at most.
template <typename Compute>
void share_tasks(size_t tasks, const Compute& compute) {
    const size_t threads = std::min<size_t>(tasks, tbb::this_task_arena::max_concurrency());
    if (threads <= 1) {
        for (size_t task = 0; task < tasks; ++task)
            compute(task);
        return;
    }
    std::vector<TaskShare> shares(threads);
    for (size_t i = 0; i < threads; ++i)
        shares[i].assign(static_cast<uint32_t>(tasks * i / threads), static_cast<uint32_t>(tasks * (i + 1) / threads));
    const auto run = [&](size_t own) {
        size_t task;
        while (shares[own].take_first(task))
            compute(task);
        for (size_t i = 1; i < threads; ++i)
            while (shares[(own + i) % threads].take_last(task))
                compute(task);
    };
    tbb::parallel_for(size_t{0}, threads, run, tbb::static_partitioner());
}

}  // namespace dynamic_tinybert
