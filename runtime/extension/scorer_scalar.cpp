// The readable path: what the faster ones are compared with, and what runs on a CPU that has none of them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "scorer_kernels.hpp"

namespace dynamic_tinybert {
namespace {

float gelu(float x) {
    return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
}

void fold(const float* by_state, const float* by_product, const float* by_question, const float* bias,
          const float* mean, size_t hidden, float* panel) {
    float* offset = panel + hidden * scorer_columns;
    std::copy_n(bias, scorer_columns, offset);
    for (size_t k = 0; k < hidden; ++k)
        for (size_t w = 0; w < scorer_columns; ++w) {
            const size_t at = k * scorer_columns + w;
            panel[at] = by_state[at] + mean[k] * by_product[at];
            offset[w] += mean[k] * by_question[at];
        }
}

void project(const float* state, size_t rows, size_t hidden, const float* panels, size_t columns, float* to) {
    for (size_t i = 0; i < rows; ++i)
        for (size_t w = 0; w < columns; ++w) {
            const float* column = panels + w / scorer_columns * hidden * scorer_columns + w % scorer_columns;
            float sum = 0.0f;
            for (size_t k = 0; k < hidden; ++k)
                sum += state[i * hidden + k] * column[k * scorer_columns];
            to[i * columns + w] = sum;
        }
}

/// How like a token is to the question in one head.
float likeness(const float* token, size_t head, const FirstLayer& first) {
    float most = first.num_question ? -std::numeric_limits<float>::infinity() : 0.0f;
    for (size_t j = 0; j < first.num_question; ++j) {
        float sum = 0.0f;
        for (size_t c = head; c < first.components; c += first.heads)
            sum += token[c] * first.question[j * first.components + c];
        most = std::max(sum, most);
    }
    return most;
}

void features(const float* state, size_t rows, size_t hidden, size_t width, const FirstLayer& first,
              float* features) {
    thread_local std::vector<float> token;
    token.resize(first.components);
    for (size_t i = 0; i < rows; ++i, state += hidden, features += width) {
        for (size_t w = 0; w < width; ++w) {
            const float* column =
                first.panels + w / scorer_columns * (hidden + 1) * scorer_columns + w % scorer_columns;
            features[w] = column[hidden * scorer_columns];
            for (size_t k = 0; k < hidden; ++k)
                features[w] += state[k] * column[k * scorer_columns];
        }
        project(state, 1, hidden, first.token, first.components, token.data());
        for (size_t head = 0; head < first.heads; ++head) {
            const float like = likeness(token.data(), head, first);
            for (size_t w = 0; w < width; ++w)
                features[w] += like * first.mix[head * width + w];
        }
        for (size_t w = 0; w < width; ++w)
            features[w] = gelu(features[w]);
    }
}

void look_around(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                 size_t first, size_t last, float* to) {
    const size_t half = neighbourhood.size / 2;
    thread_local std::vector<float> around;
    around.resize(width);
    for (size_t i = first; i < last; ++i) {
        around.assign(neighbourhood.bias, neighbourhood.bias + width);
        for (size_t k = 0; k < neighbourhood.size; ++k)
            if (i + k >= half && i + k - half < length)
                for (size_t w = 0; w < width; ++w)
                    around[w] += features[(i + k - half) * width + w] * neighbourhood.kernel[k * width + w];
        for (size_t w = 0; w < width; ++w) {
            float sum = neighbourhood.mix_bias[w];
            for (size_t k = 0; k < width; ++k)
                sum += around[k] * neighbourhood.mix[k * width + w];
            to[i * width + w] = features[i * width + w] + gelu(sum);
        }
    }
}

}  // namespace

const ScorerKernels scorer_scalar{fold, project, features, look_around};

}  // namespace dynamic_tinybert
