#pragma once
// Arithmetic in f32 that the hand-written AVX2 kernels share. Matrix multiplication reads its right side in panels of
// 16 columns; the sums of 6 rows of the left side by one panel are held in 12 registers.

#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#define AVX2 __attribute__((target("avx2,fma")))

namespace dynamic_tinybert {
namespace {  // each including file compiles its own copy, so that no file is linked to AVX2 code of another

constexpr size_t panel_width = 16;  // columns of a panel
constexpr size_t strip = 6;         // rows whose sums are held in registers

/// Number of panels that hold these columns.
constexpr size_t panels(size_t columns) {
    return (columns + panel_width - 1) / panel_width;
}

/// The right side of a matrix multiplication.
struct Panels {
    const float* data;  ///< First row of the first panel.
    size_t step;        ///< Floats from one panel to the next.
    size_t stride;      ///< Floats from one row to the next.
};

/// Panels [depth, 16] that lie one behind the other.
inline Panels packed_panels(const float* data, size_t depth) {
    return {data, depth * panel_width, panel_width};
}

/// c[rows, 16] = a[rows, depth] * one panel
template <int rows>
AVX2 inline void multiply_strip(size_t depth, const float* a, size_t a_stride, const float* b, size_t b_stride,
                                float* c, size_t c_stride) {
    __m256 left[rows], right[rows];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
        left[i] = right[i] = _mm256_setzero_ps();
    for (size_t k = 0; k < depth; ++k, b += b_stride) {
        const __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            const __m256 factor = _mm256_broadcast_ss(a + i * a_stride + k);
            left[i] = _mm256_fmadd_ps(factor, b_left, left[i]);
            right[i] = _mm256_fmadd_ps(factor, b_right, right[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
        _mm256_storeu_ps(c + i * c_stride, left[i]);
        _mm256_storeu_ps(c + i * c_stride + 8, right[i]);
    }
}

using MultiplyStrip = void (*)(size_t, const float*, size_t, const float*, size_t, float*, size_t);
constexpr MultiplyStrip multiply_strips[strip + 1] = {nullptr,           multiply_strip<1>, multiply_strip<2>,
                                                      multiply_strip<3>, multiply_strip<4>, multiply_strip<5>,
                                                      multiply_strip<6>};

/// c[rows, columns] = a[rows, depth] * b
inline void multiply(size_t rows, size_t columns, size_t depth, const float* a, size_t a_stride, const Panels& b,
                     float* c, size_t c_stride) {
    for (size_t column = 0; column < columns; column += panel_width)
        for (size_t row = 0; row < rows; row += strip)
            multiply_strips[std::min(strip, rows - row)](depth, a + row * a_stride, a_stride,
                                                         b.data + column / panel_width * b.step, b.stride,
                                                         c + row * c_stride + column, c_stride);
}

AVX2 inline float sum_of(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

AVX2 inline float max_of(__m256 v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/// 2^x for x <= 0, with a relative error of 1e-7; exactly 0 below 2^-126.5. NaN stays NaN.
AVX2 inline __m256 exp2_of_nonpositive(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-127.0f), x);
    const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 f = _mm256_sub_ps(x, whole);
    // Minimax polynomial of 2^f on [-0.5, 0.5], exact at 0.
    __m256 p = _mm256_set1_ps(1.535336178e-04f);
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.339887446e-03f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.618437359e-03f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.550332471e-02f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.402264791e-01f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.931472029e-01f));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

}  // namespace
}  // namespace dynamic_tinybert
