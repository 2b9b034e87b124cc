// Embeddings by AVX2 and FMA.

#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {

AVX2 void add_word_avx2(const int8_t* word, float scale, const float* added, size_t width, float* sum) {
    const size_t whole = width / 8 * 8;
    const __m256 scales = _mm256_set1_ps(scale);
    for (size_t k = 0; k < whole; k += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(word + k));
        const __m256 numbers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm256_storeu_ps(sum + k, _mm256_fmadd_ps(numbers, scales, _mm256_loadu_ps(added + k)));
    }
    for (size_t k = whole; k < width; ++k)
        sum[k] = word[k] * scale + added[k];
}

}  // namespace dynamic_tinybert
