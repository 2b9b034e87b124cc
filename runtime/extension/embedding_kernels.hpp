#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// sum[k] = word[k] * scale + added[k]
using AddWord = void (*)(const int8_t* word, float scale, const float* added, size_t width, float* sum);

void add_word_scalar(const int8_t*, float, const float*, size_t, float*);
void add_word_avx2(const int8_t*, float, const float*, size_t, float*);

}  // namespace dynamic_tinybert
