#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// to[rows, 2] = state[rows, width] * weights + bias, where head [2, width + 1] holds the weights of each logit
/// followed by its bias.
using ComputeLogits = void (*)(const float* state, const float* head, size_t rows, size_t width, float* to);

}  // namespace dynamic_tinybert
