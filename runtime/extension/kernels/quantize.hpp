#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace dynamic_tinybert {

/// Rounds to the nearest integer, ties to even, and clamps to 0 ... 255. NaN becomes 0.
inline uint8_t quantize(float x) {
    return static_cast<uint8_t>(std::nearbyint(std::min(std::max(0.0f, x), 255.0f)));
}

}  // namespace dynamic_tinybert
