// LayerNorm by AVX2 and FMA.

#include <cmath>

#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {

AVX2 void add_and_normalize_avx2(const Normalization& to, const float* a, const float* b, size_t rows, float* state) {
    const size_t width = to.width, whole = width / 8 * 8;
    const float per_width = 1.0f / static_cast<float>(width);
    for (size_t row = 0; row < rows; ++row, a += width, b += width, state += width) {
        __m256 sums = _mm256_setzero_ps(), squares = _mm256_setzero_ps();
        float sum = 0.0f, square = 0.0f;
        for (size_t k = 0; k < whole; k += 8) {
            const __m256 x = _mm256_add_ps(_mm256_loadu_ps(a + k), _mm256_loadu_ps(b + k));
            _mm256_storeu_ps(state + k, x);
            sums = _mm256_add_ps(sums, x);
        }
        for (size_t k = whole; k < width; ++k)
            sum += state[k] = a[k] + b[k];
        const float mean = (sum + sum_of(sums)) * per_width;
        const __m256 means = _mm256_set1_ps(mean);
        for (size_t k = 0; k < whole; k += 8) {
            const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(state + k), means);
            squares = _mm256_fmadd_ps(x, x, squares);
        }
        for (size_t k = whole; k < width; ++k)
            square += (state[k] - mean) * (state[k] - mean);
        const float inv_deviation = 1.0f / std::sqrt((square + sum_of(squares)) * per_width + to.epsilon);
        const __m256 factor = _mm256_set1_ps(inv_deviation);
        for (size_t k = 0; k < whole; k += 8) {
            const __m256 x = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(state + k), means), factor);
            _mm256_storeu_ps(state + k, _mm256_fmadd_ps(x, _mm256_loadu_ps(to.gamma + k), _mm256_loadu_ps(to.beta + k)));
        }
        for (size_t k = whole; k < width; ++k)
            state[k] = (state[k] - mean) * inv_deviation * to.gamma[k] + to.beta[k];
    }
}

}  // namespace dynamic_tinybert
