#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// What turns a sum into a normalised state; rows of `width` floats.
struct Normalization {
    const float* gamma;
    const float* beta;
    float epsilon;  ///< Added to the variance.
    size_t width;
};

/// Rows of state = (x - mean) / sqrt(variance + epsilon) * gamma + beta, where x = a + b; the state may lie where a does.
using AddAndNormalize = void (*)(const Normalization& normalization, const float* a, const float* b, size_t rows,
                                 float* state);

}  // namespace dynamic_tinybert
