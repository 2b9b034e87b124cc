// AVX2 with FMA.

#include <cmath>

#include "avx2.hpp"
#include "layer_norm_kernels.hpp"
#include "quantize.hpp"

namespace dynamic_tinybert {
namespace {

/// 32 bits each of four registers as 8, held within 0 ... 255.
AVX2 inline __m256i narrow(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

AVX2 void quantize_row(const Normalization& to, const float* state, uint8_t* quantized) {
    const __m256 zero_point = _mm256_set1_ps(to.zero_point);
    const auto units = [&](size_t k) __attribute__((target("avx2,fma"))) {
        const __m256 x = _mm256_fmadd_ps(_mm256_loadu_ps(state + k), _mm256_loadu_ps(to.per_unit + k), zero_point);
        return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(255.0f), x));  // of what is no int32, too
    };
    size_t k = 0;
    for (; k + 32 <= to.width; k += 32)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(quantized + k),
                            narrow(units(k), units(k + 8), units(k + 16), units(k + 24)));
    for (; k < to.width; ++k)
        quantized[k] = quantize(std::fma(state[k], to.per_unit[k], to.zero_point));
}

}  // namespace

AVX2 void add_and_normalize_avx2(const Normalization& to, const float* a, const float* b, size_t rows, float* state,
                                 uint8_t* quantized) {
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
        const float per_deviation = 1.0f / std::sqrt((square + sum_of(squares)) * per_width + to.epsilon);
        const __m256 factor = _mm256_set1_ps(per_deviation);
        for (size_t k = 0; k < whole; k += 8) {
            const __m256 x = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(state + k), means), factor);
            _mm256_storeu_ps(state + k, _mm256_fmadd_ps(x, _mm256_loadu_ps(to.gamma + k), _mm256_loadu_ps(to.beta + k)));
        }
        for (size_t k = whole; k < width; ++k)
            state[k] = (state[k] - mean) * per_deviation * to.gamma[k] + to.beta[k];
        if (to.per_unit)
            quantize_row(to, state, quantized + row * width);
    }
}

}  // namespace dynamic_tinybert
