// In f32 by AVX2 with FMA.

#include <algorithm>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {
namespace {

static_assert(scorer_columns == panel);

/// NaN stays NaN.
AVX2 inline __m256 relu(__m256 x) {
    return _mm256_max_ps(_mm256_setzero_ps(), x);
}

size_t packed_size(size_t, size_t) {
    return 0;
}

/// Nothing: panels are read as they lie.
void pack(const ScorerPanels&, size_t, float*) {}

void project(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
             size_t stride) {
    const float* columns = panels.columns + first * panels.depth * panel;
    multiply(rows, count * panel, panels.depth, state, panels.depth, packed_panels(columns, panels.depth), to, stride);
}

/// to[rows, heads]: how like each token is to the question
AVX2 void liken(const FirstLayer& first, const float* tokens, size_t rows, float* to) {
    if (first.num_asked == 0) {
        std::fill_n(to, rows * first.heads, 0.0f);
        return;
    }
    thread_local Aligned<float> products;
    products.resize(rows * first.num_asked);
    for (size_t head = 0; head < first.heads; ++head) {
        const float* asked = first.asked + head * first.num_asked * first.head_size;
        multiply(rows, first.num_asked, first.head_size, tokens + head * first.head_size, first.stride,
                 packed_panels(asked, first.head_size), products.data(), first.num_asked);
        for (size_t i = 0; i < rows; ++i) {
            const float* of_token = products.data() + i * first.num_asked;
            __m256 most = _mm256_loadu_ps(of_token);
            for (size_t j = 8; j < first.num_asked; j += 8)
                most = _mm256_max_ps(_mm256_loadu_ps(of_token + j), most);
            to[i * first.heads + head] = max_of(most);
        }
    }
}

}  // namespace

AVX2 void features_avx2(const FirstLayer& first, const float* projected, size_t rows, size_t width, float* features) {
    thread_local Aligned<float> likeness;
    likeness.resize(rows * first.heads);
    liken(first, projected + width, rows, likeness.data());
    multiply(rows, width, first.heads, likeness.data(), first.heads, {first.mix, panel, width}, features, width);
    for (size_t i = 0; i < rows; ++i)
        for (size_t w = 0; w < width; w += 8) {
            const float* of_state = projected + i * first.stride + w;
            const __m256 sum = _mm256_add_ps(_mm256_loadu_ps(of_state), _mm256_loadu_ps(first.bias + w));
            float* feature = features + i * width + w;
            _mm256_storeu_ps(feature, relu(_mm256_add_ps(sum, _mm256_loadu_ps(feature))));
        }
}

namespace {

/// The convolution at one position, 16 columns in two registers.
struct Convolved {
    __m256 left, right;

    AVX2 void add(const float* row, __m256 kernel_left, __m256 kernel_right) {
        left = _mm256_fmadd_ps(_mm256_loadu_ps(row), kernel_left, left);
        right = _mm256_fmadd_ps(_mm256_loadu_ps(row + 8), kernel_right, right);
    }
};

/// to[positions, width] = the convolution at positions i, i + 1 ...; together, as one alone would wait for its sums.
template <int positions>
AVX2 void convolve(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width, size_t i,
                   float* to) {
    const size_t half = neighbourhood.size / 2;
    const auto first_of = [&](size_t at) { return half > at ? half - at : 0; };
    const auto last_of = [&](size_t at) { return std::min(neighbourhood.size, length + half - at); };
    // What all of these positions see of the kernel; at the ends of the sequence some see a little more.
    const size_t first = first_of(i), last = last_of(i + positions - 1);
    for (size_t w = 0; w < width; w += panel) {
        const float* kernel = neighbourhood.kernel + w;
        const auto row = [&](size_t at, size_t k) { return features + (at + k - half) * width + w; };
        Convolved sums[positions];
        for (Convolved& sum : sums)
            sum = {_mm256_loadu_ps(neighbourhood.bias + w), _mm256_loadu_ps(neighbourhood.bias + w + 8)};
        const auto add = [&](int p, size_t begin, size_t end) AVX2 {
            for (size_t k = begin; k < end; ++k)
                sums[p].add(row(i + p, k), _mm256_loadu_ps(kernel + k * width), _mm256_loadu_ps(kernel + k * width + 8));
        };
        for (int p = 0; p < positions; ++p)
            add(p, first_of(i + p), first);
        for (size_t k = first; k < last; ++k) {
            const __m256 kernel_left = _mm256_loadu_ps(kernel + k * width);
            const __m256 kernel_right = _mm256_loadu_ps(kernel + k * width + 8);
#pragma GCC unroll 4
            for (int p = 0; p < positions; ++p)
                sums[p].add(row(i + p, k), kernel_left, kernel_right);
        }
        for (int p = 0; p < positions; ++p) {
            add(p, last, last_of(i + p));
            _mm256_storeu_ps(to + p * width + w, sums[p].left);
            _mm256_storeu_ps(to + p * width + w + 8, sums[p].right);
        }
    }
}

}  // namespace

AVX2 void look_around_avx2(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                           size_t first, size_t last, float* to) {
    thread_local Aligned<float> around;
    around.resize((last - first) * width);
    size_t i = first;
    for (; i + 4 <= last; i += 4)
        convolve<4>(neighbourhood, features, length, width, i, around.data() + (i - first) * width);
    for (; i < last; ++i)
        convolve<1>(neighbourhood, features, length, width, i, around.data() + (i - first) * width);
    multiply(last - first, width, width, around.data(), width, {neighbourhood.mix, panel, width},
             to + first * width, width);
    for (size_t at = first * width; at < last * width; at += width)
        for (size_t w = 0; w < width; w += 8) {
            const __m256 mixed = _mm256_add_ps(_mm256_loadu_ps(to + at + w), _mm256_loadu_ps(neighbourhood.mix_bias + w));
            _mm256_storeu_ps(to + at + w, _mm256_add_ps(_mm256_loadu_ps(features + at + w), relu(mixed)));
        }
}

const ScorerKernels scorer_f32_avx2{.packed_size = packed_size,
                                    .pack = pack,
                                    .project = project,
                                    .features = features_avx2,
                                    .look_around = look_around_avx2};

}  // namespace dynamic_tinybert
