#include "ops/stages.hpp"

#include <immintrin.h>

#include <thread>
#include <utility>

namespace dynamic_tinybert {
namespace {

constexpr size_t pauses_before_yielding = 4096;  // about 50 µs: the thread that is waited for may have lost its core

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
            m_failed = true;  // so that no other thread waits for this one's items
            throw;
        }
        for (size_t pauses = 0; stage.done.load(std::memory_order_acquire) < stage.items; ++pauses) {
            if (m_failed)
                return;
            if (pauses < pauses_before_yielding)
                _mm_pause();
            else
                std::this_thread::yield();
        }
    }
}

void Stages::compute_items(Stage& stage, size_t thread) {
    size_t item, computed = 0;
    for (; stage.shares[thread].take_first(item); ++computed)
        stage.compute(item);
    for (size_t k = 1; k < m_threads; ++k)
        for (; stage.shares[(thread + k) % m_threads].take_last(item); ++computed)
            stage.compute(item);
    if (computed)
        stage.done.fetch_add(computed, std::memory_order_release);
}

}  // namespace dynamic_tinybert
