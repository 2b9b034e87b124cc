#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// A linear layer of few rows in f32: to[rows, columns] = state[rows, width] * weights + bias, where
/// layer [columns, width + 1] holds the weights of each column followed by its bias. Rows of `to` lie `stride` numbers
/// apart. A number does not depend on other rows or columns.
using FloatLinearKernel = void (*)(const float* state, const float* layer, size_t rows, size_t width, size_t columns,
                             float* to, size_t stride);

}  // namespace dynamic_tinybert
