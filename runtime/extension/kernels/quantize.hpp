#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace dynamic_tinybert {

/// The nearest whole number within 0 ... 255, of two the even one. NaN becomes 0.
inline uint8_t quantize(float units) {
    return static_cast<uint8_t>(std::nearbyint(std::min(std::max(0.0f, units), 255.0f)));
}

}  // namespace dynamic_tinybert
