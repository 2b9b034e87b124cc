// Keeps TBB usable in a forked child. fork() does not copy worker threads, and TBB's scheduler in the child would wait
// for them forever.
//
// Therefore all workers are held in a task while the process forks. The state of the scheduler is then consistent in
// both processes: every worker is busy in an arena that has work for exactly this number of workers, and none holds a
// lock. In the parent the workers continue. In the child they count as busy forever; the limit of workers is raised by
// their number, and TBB starts new ones when there is work.

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>
#include <semaphore.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace {

using Limit = tbb::global_control;

struct Semaphore {
    Semaphore() { sem_init(&of, 0, 0); }
    ~Semaphore() { sem_destroy(&of); }
    sem_t of;
};

struct Hold {
    std::atomic<bool> over{false};
    Semaphore arrivals, releases;
};

// The caller guards these variables: only one thread forks at a time. A child never destroys what its parent created:
// destructors would wait for threads that do not exist.
std::shared_ptr<Hold>* hold = nullptr;
tbb::task_arena* arena = nullptr;
Limit* limit = nullptr;
size_t held = 0;  // workers that are held now
size_t lost = 0;  // workers that count as busy forever in this process

}  // namespace

/// Hold TBB's workers in a task; wait until all have arrived or `seconds` have passed. Does nothing if they are held.
extern "C" __attribute__((visibility("default"))) void dynamic_tinybert_hold_workers(double seconds) {
    if (held != 0) {
        return;
    }
    const size_t threads = Limit::active_value(Limit::max_allowed_parallelism);
    held = threads > lost + 1 ? threads - lost - 1 : 0;
    if (held == 0) {
        return;
    }
    hold = new std::shared_ptr<Hold>(std::make_shared<Hold>());
    arena = new tbb::task_arena(static_cast<int>(held + 1), 1);
    for (size_t task = 0; task < held; ++task) {
        arena->enqueue([on = *hold] {
            if (on->over) {
                return;
            }
            sem_post(&on->arrivals.of);
            while (sem_wait(&on->releases.of) != 0) {  // interrupted by a signal
            }
        });
    }
    timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    const int64_t nanoseconds = end.tv_nsec + static_cast<int64_t>(seconds * 1e9);
    end.tv_sec += nanoseconds / 1'000'000'000;
    end.tv_nsec = nanoseconds % 1'000'000'000;
    for (size_t task = 0; task < held;) {
        if (sem_timedwait(&(*hold)->arrivals.of, &end) == 0) {
            ++task;
        } else if (errno != EINTR) {
            break;  // other code of this process keeps a worker busy
        }
    }
}

/// In the parent: let the workers go on.
extern "C" __attribute__((visibility("default"))) void dynamic_tinybert_release_workers() {
    if (held == 0) {
        return;
    }
    (*hold)->over = true;
    for (size_t task = 0; task < held; ++task) {
        sem_post(&(*hold)->releases.of);
    }
    delete hold;
    delete arena;
    held = 0;
}

/// In the child: count the workers that were held as lost, and let TBB start as many others.
extern "C" __attribute__((visibility("default"))) void dynamic_tinybert_replace_workers() {
    if (held == 0) {
        return;
    }
    (*hold)->over = true;  // tasks that no worker has taken yet must not hold a worker of this process
    const size_t threads = Limit::active_value(Limit::max_allowed_parallelism) + held;
    delete limit;  // the smallest limit counts, and the new one is higher
    limit = new Limit(Limit::max_allowed_parallelism, threads);
    lost += held;
    held = 0;
}
