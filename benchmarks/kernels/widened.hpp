#pragma once
// The other exact way to multiply u8 and s8 without VNNI, for comparison: widen both to 16 bits, then vpmaddwd (AVX2).

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/aligned.hpp"

namespace widened {

#define AVX2 __attribute__((target("avx2,fma")))

constexpr size_t columns = 16, strip = 4;  // size of a block; with 6 rows GCC 12 spills

AVX2 inline __m256i load(const int16_t* weights) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
}

/// Loads INT8 weights and widens them: this is done in the loop.
AVX2 inline __m256i load(const int8_t* weights) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
}

AVX2 inline void add_products(__m256i& sums, __m256i a, __m256i b) {
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
}

/// Computes result [4, 16] (rows `width` apart) from levels [4, depth] and weights [depth / 2, 16, 2].
template <typename Weight>
AVX2 inline void multiply_strip(const int16_t* levels, size_t depth, const Weight* weights, float* result, size_t width) {
    __m256i sum[strip][2];
#pragma GCC unroll 4
    for (size_t i = 0; i < strip; ++i)
        sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (size_t k = 0; k < depth; k += 2, weights += 2 * columns) {
        const __m256i left = load(weights), right = load(weights + columns);
#pragma GCC unroll 4
        for (size_t i = 0; i < strip; ++i) {
            int32_t two;
            __builtin_memcpy(&two, levels + i * depth + k, sizeof two);
            add_products(sum[i][0], _mm256_set1_epi32(two), left);
            add_products(sum[i][1], _mm256_set1_epi32(two), right);
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < strip; ++i) {
        _mm256_storeu_ps(result + i * width, _mm256_cvtepi32_ps(sum[i][0]));
        _mm256_storeu_ps(result + i * width + 8, _mm256_cvtepi32_ps(sum[i][1]));
    }
}

/// Packs weights [width, depth] into panels of 16 columns, [depth / 2, 16, 2] each.
template <typename Weight>
dynamic_tinybert::Aligned<Weight> pack(const int8_t* weights, size_t width, size_t depth) {
    dynamic_tinybert::Aligned<Weight> packed(width * depth);
    for (size_t j = 0; j < width; ++j)
        for (size_t k = 0; k < depth; ++k)
            packed[j / columns * columns * depth + (k / 2 * columns + j % columns) * 2 + k % 2] = weights[j * depth + k];
    return packed;
}

/// Computes a whole product: widens `from` into `levels` first. `rows` must be a multiple of 4, `width` one of 16.
template <typename Weight>
AVX2 void multiply(const uint8_t* from, size_t rows, size_t depth, const Weight* packed, size_t width, float* result,
                   int16_t* levels) {
    for (size_t i = 0; i < rows * depth; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(levels + i),
                            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    for (size_t column = 0; column < width; column += columns, packed += columns * depth)
        for (size_t row = 0; row < rows; row += strip)
            multiply_strip(levels + row * depth, depth, packed, result + row * width + column, width);
}

#undef AVX2

}  // namespace widened
