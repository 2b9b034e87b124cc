// share_tasks and steal_tasks: every task runs once, whatever the number of threads; and where threads take tasks from
// each other, one that is stuck in a task leaves all others to the remaining threads. Prints what is wrong and returns 1.

#include <oneapi/tbb/global_control.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "ops/task_sharing.hpp"

namespace {

using namespace std::chrono_literals;

bool each_runs_once(int threads, size_t tasks, size_t grain, bool steal) {
    std::vector<std::atomic<int>> runs(tasks);
    const auto run = [&](size_t first, size_t end) {
        for (size_t task = first; task < end; ++task)
            ++runs[task];
    };
    tbb::task_arena(threads).execute([&] {
        if (steal)
            dynamic_tinybert::steal_tasks(tasks, grain, run);
        else
            dynamic_tinybert::share_tasks(tasks, grain, run);
    });
    for (const auto& count : runs)
        if (count != 1) {
            std::printf("%zu tasks by %zu on %d threads: one ran %d times\n", tasks, grain, threads, count.load());
            return false;
        }
    return true;
}

/// The first task ends when all others have; it gives up after a time in which they cannot all have been waiting for
/// it.
bool others_go_on(int threads, size_t tasks) {
    std::atomic<size_t> others{0};
    size_t seen = 0;
    tbb::task_arena(threads).execute([&] {
        dynamic_tinybert::steal_tasks(tasks, 1, [&](size_t task, size_t) {
            if (task != 0) {
                ++others;
                return;
            }
            for (int turn = 0; turn < 20'000 && others + 1 < tasks; ++turn)
                std::this_thread::sleep_for(1ms);
            seen = others;
        });
    });
    if (seen + 1 < tasks)
        std::printf("%zu tasks on %d threads: %zu waited for the first one\n", tasks, threads, tasks - 1 - seen);
    return seen + 1 == tasks;
}

}  // namespace

int main() {
    const tbb::global_control workers(tbb::global_control::max_allowed_parallelism, 4);
    bool right = true;
    for (int threads : {1, 2, 3, 4})
        for (size_t tasks : {0, 1, 2, 3, 7, 24, 1000})
            for (size_t grain : {1, 5})
                for (int turn = 0; turn < 50; ++turn)
                    right &= each_runs_once(threads, tasks, grain, turn % 2);
    for (int threads : {2, 3, 4})
        right &= others_go_on(threads, 24);
    return right ? 0 : 1;
}
