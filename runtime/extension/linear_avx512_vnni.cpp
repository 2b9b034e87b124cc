// AVX-512 with VNNI: four products of 8 bits are added to each of 16 sums at once. 6 rows by 64 columns of sums stay in
// registers, a panel of the weights in the first-level cache.

#include <algorithm>
#include <iterator>

#include "avx512_vnni.hpp"
#include "linear_kernels.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t panels = panel_columns / lanes;
constexpr size_t line = 64;  // bytes of the cache

/// Four bytes of a row, as often as there are lanes.
AVX512 inline __m512i four_of(const uint8_t* row) {
    int32_t four;
    __builtin_memcpy(&four, row, sizeof four);
    return _mm512_set1_epi32(four);
}

/// Rounded to even, held within 0 ... 255; NaN becomes 0.
AVX512 inline __m128i in_8_bits(__m512 units) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_max_ps(units, _mm512_setzero_ps()));
    return _mm512_cvtusepi32_epi8(whole);
}

/// x * (1 + erf(x / sqrt(2))) / 2, wrong by less than 1e-4 up to |x| = 12: a minimax polynomial in x^2 up to
/// |x| = 4.2, beyond which the function is flat, or the identity.
AVX512 inline __m512 gelu(__m512 x) {
    constexpr float coefficients[] = {9.84757763e-11f, -9.59127813e-09f, 4.14493817e-07f, -1.05791045e-05f, 1.79671647e-04f, -2.17291666e-03f, 1.94818761e-02f, -1.32444147e-01f, 7.97669153e-01f};
    const __m512 most = _mm512_set1_ps(4.2f);
    const __m512 held = _mm512_max_ps(_mm512_min_ps(x, most), _mm512_set1_ps(-4.2f));
    const __m512 square = _mm512_mul_ps(held, held);
    __m512 sum = _mm512_set1_ps(coefficients[0]);
#pragma GCC unroll 8
    for (size_t k = 1; k < std::size(coefficients); ++k)
        sum = _mm512_fmadd_ps(sum, square, _mm512_set1_ps(coefficients[k]));
    const __m512 half = _mm512_set1_ps(0.5f);
    return _mm512_mul_ps(x, _mm512_fmadd_ps(_mm512_mul_ps(sum, held), half, half));
}

AVX512 void quantize_rows(const float* from, const float* per_unit, float zero_point, size_t rows, size_t depth,
                          uint8_t* to) {
    const __m512 zero = _mm512_set1_ps(zero_point);
    for (size_t row = 0; row < rows; ++row, from += depth, to += depth)
        for (size_t k = 0; k < depth; k += lanes) {
            const __mmask16 there = first_lanes(depth - k);
            const __m512 units = _mm512_maskz_loadu_ps(there, per_unit + k);
            const __m512 x = _mm512_maskz_loadu_ps(there, from + k);
            _mm_mask_storeu_epi8(to + k, there, in_8_bits(_mm512_fmadd_ps(x, units, zero)));
        }
}

/// `ahead` is fetched into the second-level cache meanwhile, a line for each step.
template <int rows>
AVX512 inline void multiply_strip(const Linear& linear, const uint8_t* from, const int8_t* weights, size_t first,
                                  const int8_t* ahead, float* result, uint8_t* quantized) {
    __m512i sum[rows][panels];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (size_t p = 0; p < panels; ++p)
            sum[i][p] = _mm512_setzero_si512();
    for (size_t k = 0; k < linear.depth; k += depth_step) {
        _mm_prefetch(ahead + k / depth_step * line, _MM_HINT_T1);
        __m512i column[panels];
#pragma GCC unroll 4
        for (size_t p = 0; p < panels; ++p)
            column[p] = _mm512_loadu_si512(weights + k * panel_columns + p * lanes * depth_step);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            const __m512i four = four_of(from + i * linear.depth + k);
#pragma GCC unroll 4
            for (size_t p = 0; p < panels; ++p)
                add_products_of_8_bits(sum[i][p], four, column[p]);
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < panels; ++p) {
        const size_t column = first + p * lanes;
        if (column >= linear.width)
            break;
        const __mmask16 there = first_lanes(linear.width - column);
        const __m512 scale = _mm512_maskz_loadu_ps(there, linear.scale + column);
        const __m512 bias = _mm512_maskz_loadu_ps(there, linear.bias + column);
        const __m512 zero = _mm512_set1_ps(linear.zero_point);
        const __m512 units = linear.per_unit ? _mm512_maskz_loadu_ps(there, linear.per_unit + column) : zero;
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            const __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][p]), scale, bias);
            const size_t at = i * linear.width + column;
            if (linear.per_unit)
                _mm_mask_storeu_epi8(quantized + at, there, in_8_bits(_mm512_fmadd_ps(gelu(y), units, zero)));
            else
                _mm512_mask_storeu_ps(result + at, there, y);
        }
    }
}

using MultiplyStrip = void (*)(const Linear&, const uint8_t*, const int8_t*, size_t, const int8_t*, float*, uint8_t*);

/// By rows of the strip, one less.
constexpr MultiplyStrip multiply_strips[strip] = {multiply_strip<1>, multiply_strip<2>, multiply_strip<3>,
                                                  multiply_strip<4>, multiply_strip<5>, multiply_strip<6>};

void multiply_panel(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                    uint8_t* quantized) {
    const size_t size = linear.depth * panel_columns;
    const int8_t *weights = linear.weights + panel * size, *next = weights + size;
    for (size_t row = 0; row < rows; row += strip) {
        // While a panel is multiplied, the next one, which likely is this thread's as well, comes from memory.
        const size_t ahead = row / strip * linear.depth / depth_step * line;
        const size_t at = row * linear.width;
        multiply_strips[std::min(strip, rows - row) - 1](
            linear, from + row * linear.depth, weights, panel * panel_columns, next + std::min(ahead, size - 1),
            linear.per_unit ? nullptr : result + at, linear.per_unit ? quantized + at : nullptr);
    }
}

}  // namespace

const LinearKernels linear_avx512_vnni{quantize_rows, multiply_panel};

}  // namespace dynamic_tinybert
