#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// sum[k] = word[k] * scale + added[k]
using AddWord = void (*)(const int8_t* word, float scale, const float* added, size_t width, float* sum);

}  // namespace dynamic_tinybert
