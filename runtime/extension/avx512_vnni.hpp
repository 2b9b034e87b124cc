#pragma once
// Arithmetic that the AVX-512 kernels share: sums of products of whole numbers of 8 bits, four at once, and of 16, two at
// once; and matrix products of numbers of 12 bits, where each row of the left side has a unit of its own, as has each
// column of the right one.

#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns of its own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

namespace dynamic_tinybert {
namespace {  // compiled anew in each file that includes it: nothing of it must be linked into another

constexpr size_t lanes = 16;             // numbers of 32 bits in a register
constexpr size_t strip = 6;              // rows of a product that are held in registers
constexpr float most_12_bits = 2047.0f;  // of a signed number

constexpr size_t round_up(size_t count, size_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

constexpr __mmask16 first_lanes(size_t count) {
    return count >= lanes ? 0xFFFF : static_cast<__mmask16>((1u << count) - 1);
}

AVX512 inline __m512 absolute(__m512 x) {
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x);
}

/// The unit of a row in which its largest number is 2047, NaN if it holds one; 1 / unit in `per_unit`.
AVX512 inline float unit_of(const float* row, size_t size, float& per_unit) {
    __m512 largest = _mm512_setzero_ps();
    __mmask16 unordered = 0;
    for (size_t k = 0; k < size; k += lanes) {
        const __m512 x = _mm512_maskz_loadu_ps(first_lanes(size - k), row + k);
        largest = _mm512_max_ps(largest, absolute(x));
        unordered |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    const float most = unordered ? std::numeric_limits<float>::quiet_NaN() : _mm512_reduce_max_ps(largest);
    per_unit = most == 0.0f ? 0.0f : most_12_bits / most;
    return most / most_12_bits;
}

/// 16 numbers of a row in 12 bits; beyond the `left` ones that there are, zeros.
AVX512 inline __m256i in_12_bits(const float* row, size_t left, float per_unit) {
    const __m512 x = _mm512_maskz_loadu_ps(first_lanes(left), row);
    return _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(per_unit))));
}

/// A row in 12 bits, filled up to 16; returns its unit.
AVX512 inline float row_in_12_bits(const float* row, size_t size, int16_t* to) {
    float per_unit;
    const float unit = unit_of(row, size, per_unit);
    for (size_t k = 0; k < size; k += lanes)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), in_12_bits(row + k, size - k, per_unit));
    return unit;
}

// As assembly, because GCC 12 copies each sum between registers, or to the stack, around the intrinsics.

/// Adds to each of 16 sums four products of an unsigned number of 8 bits and a signed one.
AVX512 inline void add_products_of_8_bits(__m512i& sums, __m512i unsigned_ones, __m512i signed_ones) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_ones), "v"(signed_ones));
}

/// Adds to each of 16 sums two products of signed numbers of 16 bits.
AVX512 inline void add_products_of_16_bits(__m512i& sums, __m512i a, __m512i b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

inline int32_t pair(const int16_t* from) {
    int32_t both;
    __builtin_memcpy(&both, from, sizeof both);
    return both;
}

/// to[rows, panels * 16] = left[rows, depth] * right, in the units of the right side's columns. The right side lies in
/// panels of 16 columns, [depth / 2, 16, 2] each; `depth` is even.
template <int rows, int panels>
AVX512 inline void multiply_12_bits(const int16_t* left, size_t depth, const int16_t* right, const float* units,
                                    float* to, size_t stride) {
    __m512i sum[rows][panels];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
        for (int p = 0; p < panels; ++p)
            sum[i][p] = _mm512_setzero_si512();
    for (size_t k = 0; k < depth; k += 2) {
        __m512i column[panels];
        for (int p = 0; p < panels; ++p)
            column[p] = _mm512_loadu_si512(right + (p * depth + k) * lanes);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i)
            for (int p = 0; p < panels; ++p)
                add_products_of_16_bits(sum[i][p], column[p], _mm512_set1_epi32(pair(left + i * depth + k)));
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
        for (int p = 0; p < panels; ++p) {
            const __m512 unit = _mm512_loadu_ps(units + p * lanes);
            _mm512_storeu_ps(to + i * stride + p * lanes, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][p]), unit));
        }
}

using Multiply12Bits = void (*)(const int16_t*, size_t, const int16_t*, const float*, float*, size_t);

/// By rows of the strip and panels, one less.
constexpr Multiply12Bits multiply_strips_12_bits[strip][2] = {
    {multiply_12_bits<1, 1>, multiply_12_bits<1, 2>}, {multiply_12_bits<2, 1>, multiply_12_bits<2, 2>},
    {multiply_12_bits<3, 1>, multiply_12_bits<3, 2>}, {multiply_12_bits<4, 1>, multiply_12_bits<4, 2>},
    {multiply_12_bits<5, 1>, multiply_12_bits<5, 2>}, {multiply_12_bits<6, 1>, multiply_12_bits<6, 2>}};

/// The same for any number of rows, and of columns, a multiple of 16.
inline void multiply_12_bits(const int16_t* left, size_t rows, size_t depth, const int16_t* right, size_t columns,
                             const float* units, float* to, size_t stride) {
    for (size_t column = 0; column < columns; column += 2 * lanes)
        for (size_t i = 0; i < rows; i += strip)
            multiply_strips_12_bits[std::min(strip, rows - i) - 1][column + lanes < columns](
                left + i * depth, depth, right + column * depth, units + column, to + i * stride + column, stride);
}

}  // namespace
}  // namespace dynamic_tinybert
