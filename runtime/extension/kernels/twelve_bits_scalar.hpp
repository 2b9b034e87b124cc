#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// x * inv_scale rounded to an integer of magnitude `most` or less; 0 for NaN, which the row's scale then propagates.
inline int32_t quantized_to(float x, float inv_scale, int32_t most) {
    const float rounded = std::nearbyint(x * inv_scale);
    return std::fabs(rounded) <= static_cast<float>(most) ? static_cast<int32_t>(rounded) : 0;
}

/// The larger of two non-negative numbers; NaN if either is NaN.
inline float larger_or_nan(float a, float b) {
    return std::isnan(b) ? b : std::max(a, b);
}

/// Quantises a row to 12 bits; returns its scale, which is NaN if the row holds NaN.
inline float row_in_12_bits(const float* row, size_t size, int32_t* to) {
    float largest = 0.0f;
    for (size_t k = 0; k < size; ++k)
        largest = larger_or_nan(largest, std::fabs(row[k]));
    const float inv_scale = largest == 0.0f ? 0.0f : 2047.0f / largest;
    for (size_t k = 0; k < size; ++k)
        to[k] = quantized_to(row[k], inv_scale, 2047);
    return largest / 2047.0f;
}

}  // namespace dynamic_tinybert
