#pragma once

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>

#include <cstddef>

namespace dynamic_tinybert {

constexpr size_t numbers_worth_a_thread = 4 * 1024;  // with fewer, waking one takes longer

/// `compute(first, count)` on all rows, by as many threads as they are worth.
template <typename Compute>
void for_rows(size_t rows, size_t width, const Compute& compute) {
    const tbb::blocked_range<size_t> all(0, rows, numbers_worth_a_thread / width + 1);
    if (rows * width < 2 * numbers_worth_a_thread)
        compute(0, rows);
    else
        tbb::parallel_for(all, [&](const tbb::blocked_range<size_t>& r) { compute(r.begin(), r.size()); },
                          tbb::static_partitioner());
}

}  // namespace dynamic_tinybert
