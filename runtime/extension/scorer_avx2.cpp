// AVX2 with FMA.

#include <tbb/cache_aligned_allocator.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "avx2.hpp"
#include "scorer_kernels.hpp"

namespace dynamic_tinybert {
namespace {

static_assert(scorer_columns == panel);

using Buffer = std::vector<float, tbb::cache_aligned_allocator<float>>;

/// x times the share of a normal distribution below x, to an absolute 2e-7 of x: Abramowitz and Stegun 7.1.26.
AVX2 inline __m256 gelu(__m256 x) {
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 z = _mm256_mul_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x), _mm256_set1_ps(0.707106781f));
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(_mm256_set1_ps(0.3275911f), z, one));
    __m256 p = _mm256_set1_ps(1.061405429f);
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592f));
    const __m256 log2_e = _mm256_set1_ps(-1.44269504f);
    const __m256 tail = _mm256_mul_ps(_mm256_mul_ps(p, t), exp2_of_nonpositive(_mm256_mul_ps(_mm256_mul_ps(z, z), log2_e)));
    const __m256 erf = _mm256_or_ps(_mm256_sub_ps(one, tail), sign);
    const __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
    return _mm256_fmadd_ps(half, erf, half);
}

AVX2 void fold(const float* by_state, const float* by_product, const float* by_question, const float* bias,
               const float* mean, size_t hidden, float* to) {
    for (size_t column = 0; column < panel; column += 8) {
        __m256 offset = _mm256_loadu_ps(bias + column);
        for (size_t k = 0; k < hidden; ++k) {
            const size_t at = k * panel + column;
            const __m256 factor = _mm256_broadcast_ss(mean + k);
            const __m256 product = _mm256_loadu_ps(by_product + at), state = _mm256_loadu_ps(by_state + at);
            _mm256_storeu_ps(to + at, _mm256_fmadd_ps(factor, product, state));
            offset = _mm256_fmadd_ps(factor, _mm256_loadu_ps(by_question + at), offset);
        }
        _mm256_storeu_ps(to + hidden * panel + column, offset);
    }
}

void project(const float* state, size_t rows, size_t hidden, const float* panels, size_t columns, float* to) {
    multiply(rows, columns, hidden, state, hidden, packed_panels(panels, hidden), to, columns);
}

/// to[heads] of one token
AVX2 void liken(const float* token, const FirstLayer& first, float* to) {
    for (size_t head = 0; head < first.heads; head += 8) {
        __m256 most = _mm256_set1_ps(first.num_question ? -std::numeric_limits<float>::infinity() : 0.0f);
        const float* question = first.question + head;
        for (size_t j = 0; j < first.num_question; ++j, question += first.components) {
            __m256 sum = _mm256_setzero_ps();
            for (size_t c = 0; c < first.components; c += first.heads)
                sum = _mm256_fmadd_ps(_mm256_loadu_ps(token + head + c), _mm256_loadu_ps(question + c), sum);
            most = _mm256_max_ps(sum, most);
        }
        _mm256_storeu_ps(to + head, most);
    }
}

AVX2 void features(const float* state, size_t rows, size_t hidden, size_t width, const FirstLayer& first,
                   float* features) {
    thread_local Buffer tokens, likeness, matched;
    tokens.resize(rows * first.components);
    likeness.resize(rows * first.heads);
    matched.resize(rows * width);
    project(state, rows, hidden, first.token, first.components, tokens.data());
    for (size_t i = 0; i < rows; ++i)
        liken(tokens.data() + i * first.components, first, likeness.data() + i * first.heads);
    multiply(rows, width, first.heads, likeness.data(), first.heads, {first.mix, panel, width}, matched.data(), width);

    const size_t step = (hidden + 1) * panel;
    multiply(rows, width, hidden, state, hidden, {first.panels, step, panel}, features, width);
    for (size_t i = 0; i < rows * width; i += width)
        for (size_t w = 0; w < width; w += 8) {
            const __m256 bias = _mm256_loadu_ps(first.panels + w / panel * step + hidden * panel + w % panel);
            const __m256 more = _mm256_add_ps(bias, _mm256_loadu_ps(matched.data() + i + w));
            _mm256_storeu_ps(features + i + w, gelu(_mm256_add_ps(_mm256_loadu_ps(features + i + w), more)));
        }
}

/// to[width] = the convolution at position i
AVX2 void convolve(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width, size_t i,
                   float* to) {
    const size_t half = neighbourhood.size / 2;
    const size_t first = half > i ? half - i : 0, last = std::min(neighbourhood.size, length + half - i);
    for (size_t w = 0; w < width; w += panel) {
        __m256 left = _mm256_loadu_ps(neighbourhood.bias + w), right = _mm256_loadu_ps(neighbourhood.bias + w + 8);
        for (size_t k = first; k < last; ++k) {
            const float* row = features + (i + k - half) * width + w;
            const float* kernel = neighbourhood.kernel + k * width + w;
            left = _mm256_fmadd_ps(_mm256_loadu_ps(row), _mm256_loadu_ps(kernel), left);
            right = _mm256_fmadd_ps(_mm256_loadu_ps(row + 8), _mm256_loadu_ps(kernel + 8), right);
        }
        _mm256_storeu_ps(to + w, left);
        _mm256_storeu_ps(to + w + 8, right);
    }
}

AVX2 void look_around(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                      size_t first, size_t last, float* to) {
    thread_local Buffer around;
    around.resize((last - first) * width);
    for (size_t i = first; i < last; ++i)
        convolve(neighbourhood, features, length, width, i, around.data() + (i - first) * width);
    multiply(last - first, width, width, around.data(), width, {neighbourhood.mix, panel, width},
             to + first * width, width);
    for (size_t i = first * width; i < last * width; i += width)
        for (size_t w = 0; w < width; w += 8) {
            const __m256 mixed = _mm256_add_ps(_mm256_loadu_ps(to + i + w), _mm256_loadu_ps(neighbourhood.mix_bias + w));
            _mm256_storeu_ps(to + i + w, _mm256_add_ps(_mm256_loadu_ps(features + i + w), gelu(mixed)));
        }
}

}  // namespace

const ScorerKernels scorer_avx2{fold, project, features, look_around};

}  // namespace dynamic_tinybert
