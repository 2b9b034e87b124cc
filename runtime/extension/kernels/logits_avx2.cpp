// Start and end logits by AVX2 and FMA.

#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {

namespace {

constexpr size_t rows_at_once = 4;  // whose sums do not wait for each other

/// Logits of `rows` rows, at most rows_at_once. The order of additions of a row does not depend on the others.
template <size_t rows>
AVX2 void compute_rows(const float* state, const float* head, size_t width, float* to) {
    const float *start = head, *end = head + width + 1;
    const size_t whole = width / 8 * 8;
    __m256 starts[rows], ends[rows];
    for (size_t row = 0; row < rows; ++row)
        starts[row] = ends[row] = _mm256_setzero_ps();
    for (size_t k = 0; k < whole; k += 8) {
        const __m256 of_start = _mm256_loadu_ps(start + k), of_end = _mm256_loadu_ps(end + k);
        for (size_t row = 0; row < rows; ++row) {
            const __m256 x = _mm256_loadu_ps(state + row * width + k);
            starts[row] = _mm256_fmadd_ps(x, of_start, starts[row]);
            ends[row] = _mm256_fmadd_ps(x, of_end, ends[row]);
        }
    }
    for (size_t row = 0; row < rows; ++row) {
        float sums[2] = {sum_of(starts[row]), sum_of(ends[row])};
        for (size_t k = whole; k < width; ++k) {
            sums[0] += state[row * width + k] * start[k];
            sums[1] += state[row * width + k] * end[k];
        }
        to[2 * row] = sums[0] + start[width];
        to[2 * row + 1] = sums[1] + end[width];
    }
}

}  // namespace

AVX2 void compute_logits_avx2(const float* state, const float* head, size_t rows, size_t width, float* to) {
    size_t row = 0;
    for (; row + rows_at_once <= rows; row += rows_at_once)
        compute_rows<rows_at_once>(state + row * width, head, width, to + 2 * row);
    for (; row < rows; ++row)
        compute_rows<1>(state + row * width, head, width, to + 2 * row);
}

}  // namespace dynamic_tinybert
