#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// Parameters of LayerNorm over rows of `width` floats.
struct Normalization {
    const float* gamma;
    const float* beta;
    float epsilon;  ///< Added to the variance.
    size_t width;
};

/// state[rows, width] = (x - mean) / sqrt(variance + epsilon) * gamma + beta, where x = a + b. `state` may be `a`.
using AddAndNormalize = void (*)(const Normalization& normalization, const float* a, const float* b, size_t rows,
                                 float* state);

}  // namespace dynamic_tinybert
