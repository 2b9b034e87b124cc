#pragma once

#include <cpuid.h>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dynamic_tinybert {

/// The tasks first ... end - 1 with which one thread begins. It takes them from the front; other threads take from the
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

    /// Relaxed, because tasks are independent of each other: all that matters is that each is taken only once.
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

/// Runs compute(first, end) on stretches of up to `grain` of the tasks 0 ... tasks - 1, on the threads of this arena.
/// Each thread begins with its own share of neighbouring tasks, which is the same at every call, so that it finds their
/// weights in its cache. A thread that has finished its share takes single stretches from the others. So a thread that
/// runs on a slower core, or shares its core with another process, delays the others by one stretch at most.
template <typename Compute>
void steal_tasks(size_t tasks, size_t grain, const Compute& compute) {
    const size_t stretches = (tasks + grain - 1) / grain;
    const auto compute_stretch = [&](size_t i) { compute(i * grain, std::min(tasks, (i + 1) * grain)); };
    const size_t threads = std::min<size_t>(stretches, tbb::this_task_arena::max_concurrency());
    if (threads <= 1) {
        for (size_t i = 0; i < stretches; ++i)
            compute_stretch(i);
        return;
    }
    std::vector<TaskShare> shares(threads);
    for (size_t i = 0; i < threads; ++i)
        shares[i].assign(static_cast<uint32_t>(stretches * i / threads),
                         static_cast<uint32_t>(stretches * (i + 1) / threads));
    const auto run = [&](size_t own) {
        size_t i;
        while (shares[own].take_first(i))
            compute_stretch(i);
        for (size_t k = 1; k < threads; ++k)
            while (shares[(own + k) % threads].take_last(i))
                compute_stretch(i);
    };
    tbb::parallel_for(size_t{0}, threads, run, tbb::static_partitioner());
}

/// Whether cores of this CPU differ in speed: Core since the 12th generation has P and E cores, and CPUID says so.
inline bool cores_differ() {
    static const bool differ = [] {
        unsigned eax, ebx, ecx, edx;
        return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx >> 15 & 1);
    }();
    return differ;
}

/// Runs compute(first, end) on stretches of the tasks 0 ... tasks - 1, each of at least `grain`, on the threads of this
/// arena. Where all cores are equal, each thread gets an equal share: taking tasks from each other gains nothing there,
/// even with one core half occupied, and costs 2 % of short inputs (benchmarks/latency/busy_core.py).
template <typename Compute>
void share_tasks(size_t tasks, size_t grain, const Compute& compute) {
    if (cores_differ()) {
        steal_tasks(tasks, grain, compute);
        return;
    }
    const tbb::blocked_range<size_t> all(0, tasks, grain);
    tbb::parallel_for(all, [&](const tbb::blocked_range<size_t>& range) { compute(range.begin(), range.end()); },
                      tbb::static_partitioner());
}

}  // namespace dynamic_tinybert
