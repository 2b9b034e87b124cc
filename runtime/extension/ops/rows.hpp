#pragma once

#include <cstddef>

#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {

constexpr size_t numbers_worth_a_thread = 4 * 1024;  // with fewer, waking a thread takes longer than computing them

/// Runs compute(first, count) on blocks of all rows, on several threads if there are enough numbers.
template <typename Compute>
void for_rows(size_t rows, size_t width, const Compute& compute) {
    if (rows * width < 2 * numbers_worth_a_thread) {
        compute(0, rows);
        return;
    }
    share_tasks(rows, numbers_worth_a_thread / width + 1,
                [&](size_t first, size_t end) { compute(first, end - first); });
}

}  // namespace dynamic_tinybert
