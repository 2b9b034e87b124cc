#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// Rows of to[row, 2] = state[row, width] * head + bias; head [2, width + 1] holds the weights and, last, the bias of
/// each logit.
using ComputeLogits = void (*)(const float* state, const float* head, size_t rows, size_t width, float* to);

}  // namespace dynamic_tinybert
