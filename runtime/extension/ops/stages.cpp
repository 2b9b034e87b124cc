#include "ops/stages.hpp"

#include <immintrin.h>

#include <utility>

namespace dynamic_tinybert {
namespace {

/// About 40 µs on Zen 5, 160 on Skylake: a thread that is waited for longer may have lost its core, and gets this one.
constexpr size_t pauses_before_sleeping = 4096;

}  // namespace

void Stages::add(size_t items, std::function<void(size_t)> compute) {
    Stage& stage = m_stages.emplace_back(items, m_threads, std::move(compute));
    for (size_t i = 0; i < m_threads; ++i)
        stage.shares[i].assign(static_cast<uint32_t>(items * i / m_threads),
                               static_cast<uint32_t>(items * (i + 1) / m_threads));
}

void Stages::run() {
    if (m_threads <= 1) {
        for (Stage& stage : m_stages)
            for (size_t item = 0; item < stage.items; ++item)
                stage.compute(item);
        return;
    }
    tbb::parallel_for(size_t{0}, m_threads, [this](size_t thread) { work(thread); }, tbb::static_partitioner());
}

void Stages::work(size_t thread) {
    for (Stage& stage : m_stages) {
        try {
            compute_items(stage, thread);
        } catch (...) {
            m_failed = true;
            finish(stage, stage.items);  // so that no other thread waits for items that are not computed
            throw;
        }
        int left = stage.left.load(std::memory_order_acquire);
        for (size_t pauses = 0; left > 0; left = stage.left.load(std::memory_order_acquire))
            if (pauses++ < pauses_before_sleeping)
                _mm_pause();
            else
                stage.left.wait(left, std::memory_order_acquire);
        if (m_failed)
            return;
    }
}

void Stages::finish(Stage& stage, size_t computed) {
    const int items = static_cast<int>(computed);
    if (stage.left.fetch_sub(items, std::memory_order_acq_rel) <= items)
        stage.left.notify_all();
}

void Stages::compute_items(Stage& stage, size_t thread) {
    size_t item, computed = 0;
    for (; stage.shares[thread].take_first(item); ++computed)
        stage.compute(item);
    for (size_t k = 1; k < m_threads; ++k)
        for (; stage.shares[(thread + k) % m_threads].take_last(item); ++computed)
            stage.compute(item);
    if (computed)
        finish(stage, computed);
}

}  // namespace dynamic_tinybert
