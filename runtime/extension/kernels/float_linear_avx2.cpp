// Linear layers in f32 by AVX2 and FMA, for few rows or columns.

#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {

namespace {

constexpr size_t rows_at_once = 4, columns_at_once = 2;  // whose sums do not wait for each other

/// A block of at most rows_at_once rows and columns_at_once columns. The order of additions of a number does not depend
/// on the others.
template <size_t rows, size_t columns>
AVX2 void compute_block(const float* state, const float* layer, size_t width, float* to, size_t stride) {
    const size_t whole = width / 8 * 8;
    __m256 sums[rows][columns];
#pragma GCC unroll 4
    for (size_t row = 0; row < rows; ++row)
#pragma GCC unroll 2
        for (size_t column = 0; column < columns; ++column)
            sums[row][column] = _mm256_setzero_ps();
    for (size_t k = 0; k < whole; k += 8) {
        __m256 weights[columns];
#pragma GCC unroll 2
        for (size_t column = 0; column < columns; ++column)
            weights[column] = _mm256_loadu_ps(layer + column * (width + 1) + k);
#pragma GCC unroll 4
        for (size_t row = 0; row < rows; ++row) {
            const __m256 x = _mm256_loadu_ps(state + row * width + k);
#pragma GCC unroll 2
            for (size_t column = 0; column < columns; ++column)
                sums[row][column] = _mm256_fmadd_ps(x, weights[column], sums[row][column]);
        }
    }
    for (size_t row = 0; row < rows; ++row)
        for (size_t column = 0; column < columns; ++column) {
            const float* weights = layer + column * (width + 1);
            float sum = sum_of(sums[row][column]);
            for (size_t k = whole; k < width; ++k)
                sum += state[row * width + k] * weights[k];
            to[row * stride + column] = sum + weights[width];
        }
}

template <size_t rows>
AVX2 void compute_rows(const float* state, const float* layer, size_t width, size_t columns, float* to, size_t stride) {
    size_t column = 0;
    for (; column + columns_at_once <= columns; column += columns_at_once)
        compute_block<rows, columns_at_once>(state, layer + column * (width + 1), width, to + column, stride);
    for (; column < columns; ++column)
        compute_block<rows, 1>(state, layer + column * (width + 1), width, to + column, stride);
}

}  // namespace

AVX2 void float_linear_avx2(const float* state, const float* layer, size_t rows, size_t width, size_t columns,
                            float* to, size_t stride) {
    size_t row = 0;
    for (; row + rows_at_once <= rows; row += rows_at_once)
        compute_rows<rows_at_once>(state + row * width, layer, width, columns, to + row * stride, stride);
    for (; row < rows; ++row)
        compute_rows<1>(state + row * width, layer, width, columns, to + row * stride, stride);
}

}  // namespace dynamic_tinybert
