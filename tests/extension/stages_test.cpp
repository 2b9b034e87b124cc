// Stages: every item runs once, after all items of the stage before; a thread that is stuck in an item leaves the others
// of its stage to the remaining threads; an exception reaches the caller. Prints what is wrong and returns 1.

#include <oneapi/tbb/global_control.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ops/stages.hpp"

namespace {

using namespace std::chrono_literals;

/// An arena of `available` threads computes stages that count on `threads`.
bool in_order(int available, size_t threads, const std::vector<size_t>& sizes) {
    std::atomic<size_t> done{0}, early{0}, twice{0};
    tbb::task_arena(available).execute([&] {
        dynamic_tinybert::Stages stages(threads);
        size_t before = 0;
        for (size_t items : sizes) {
            const auto runs = std::make_shared<std::vector<std::atomic<int>>>(items);
            stages.add(items, [&, runs, before](size_t item) {
                early += done < before;
                twice += (*runs)[item]++;
                ++done;
            });
            before += items;
        }
        stages.run();
        early += done != before;
    });
    if (early + twice)
        std::printf("%zu threads of %d: %zu items early or missing, %zu twice\n", threads, available, early.load(),
                    twice.load());
    return early + twice == 0;
}

/// The first item ends when all others of its stage have; it gives up after a time in which they cannot all have been
/// waiting for it.
bool others_go_on(int threads, size_t items) {
    std::atomic<size_t> others{0};
    size_t seen = 0;
    tbb::task_arena(threads).execute([&] {
        dynamic_tinybert::Stages stages(threads);
        stages.add(items, [&](size_t item) {
            if (item != 0) {
                ++others;
                return;
            }
            for (int turn = 0; turn < 20'000 && others + 1 < items; ++turn)
                std::this_thread::sleep_for(1ms);
            seen = others;
        });
        stages.run();
    });
    if (seen + 1 < items)
        std::printf("%zu items on %d threads: %zu waited for the first one\n", items, threads, items - 1 - seen);
    return seen + 1 == items;
}

/// An item throws, and no item of the next stage runs.
bool exceptions_end_all(int threads) {
    std::atomic<size_t> later{0};
    try {
        tbb::task_arena(threads).execute([&] {
            dynamic_tinybert::Stages stages(threads);
            stages.add(8, [](size_t item) {
                if (item == 5)
                    throw std::runtime_error("of item 5");
            });
            stages.add(8, [&](size_t) { ++later; });
            stages.run();
        });
    } catch (const std::runtime_error&) {
        if (later == 0)
            return true;
    }
    std::printf("%d threads: an exception was lost, or %zu items ran after it\n", threads, later.load());
    return false;
}

}  // namespace

int main() {
    const tbb::global_control workers(tbb::global_control::max_allowed_parallelism, 4);
    bool right = true;
    const std::vector<size_t> sizes{1, 2, 0, 3, 24, 7, 1, 100, 4, 4};
    for (int available : {1, 2, 3, 4})
        for (size_t threads : {1, 2, 3, 4, 9})
            for (int turn = 0; turn < 50; ++turn)
                right &= in_order(available, threads, sizes);
    for (int threads : {2, 3, 4}) {
        right &= others_go_on(threads, 24);
        for (int turn = 0; turn < 50; ++turn)
            right &= exceptions_end_all(threads);
    }
    return right & exceptions_end_all(1) ? 0 : 1;
}
