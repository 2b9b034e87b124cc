#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// What turns a sum into a normalised state; rows of `width` floats.
struct Normalization {
    const float* gamma;
    const float* beta;
    const float* per_unit;  ///< Units of the quantised state in 1, by column; null leaves it out.
    float zero_point;       ///< Of the quantised state.
    float epsilon;          ///< Added to the variance.
    size_t width;
};

/// Rows of state = (x - mean) / sqrt(variance + epsilon) * gamma + beta, where x = a + b; and, unless `per_unit` is
/// null, of quantized = state * per_unit + zero_point, rounded to even and held within 0 ... 255.
using AddAndNormalize = void (*)(const Normalization& normalization, const float* a, const float* b, size_t rows,
                                 float* state, uint8_t* quantized);

void add_and_normalize_scalar(const Normalization&, const float*, const float*, size_t, float*, uint8_t*);
void add_and_normalize_avx2(const Normalization&, const float*, const float*, size_t, float*, uint8_t*);

}  // namespace dynamic_tinybert
