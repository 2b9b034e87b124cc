// Start and end logits by AVX2 and FMA.

#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {

AVX2 void compute_logits_avx2(const float* state, const float* head, size_t rows, size_t width, float* to) {
    const float *start = head, *end = head + width + 1;
    const size_t whole = width / 8 * 8;
    for (size_t row = 0; row < rows; ++row, state += width) {
        __m256 starts = _mm256_setzero_ps(), ends = _mm256_setzero_ps();
        for (size_t k = 0; k < whole; k += 8) {
            const __m256 x = _mm256_loadu_ps(state + k);
            starts = _mm256_fmadd_ps(x, _mm256_loadu_ps(start + k), starts);
            ends = _mm256_fmadd_ps(x, _mm256_loadu_ps(end + k), ends);
        }
        float sums[2] = {sum_of(starts), sum_of(ends)};
        for (size_t k = whole; k < width; ++k) {
            sums[0] += state[k] * start[k];
            sums[1] += state[k] * end[k];
        }
        to[2 * row] = sums[0] + start[width];
        to[2 * row + 1] = sums[1] + end[width];
    }
}

}  // namespace dynamic_tinybert
