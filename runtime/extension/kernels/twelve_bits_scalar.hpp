#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// A whole number; of NaN 0, and the unit must not hide that.
inline int32_t in_units(float x, float per_unit, int32_t most) {
    const float units = std::nearbyint(x * per_unit);
    return std::fabs(units) <= static_cast<float>(most) ? static_cast<int32_t>(units) : 0;
}

/// The larger of two numbers that are not negative; NaN if one of them is.
inline float larger_or_nan(float a, float b) {
    return std::isnan(b) ? b : std::max(a, b);
}

/// A row in 12 bits; returns its unit, NaN if it holds one.
inline float row_in_12_bits(const float* row, size_t size, int32_t* to) {
    float largest = 0.0f;
    for (size_t k = 0; k < size; ++k)
        largest = larger_or_nan(largest, std::fabs(row[k]));
    const float per_unit = largest == 0.0f ? 0.0f : 2047.0f / largest;
    for (size_t k = 0; k < size; ++k)
        to[k] = in_units(row[k], per_unit, 2047);
    return largest / 2047.0f;
}

}  // namespace dynamic_tinybert
