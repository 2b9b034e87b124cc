// The readable path: what the faster ones are compared with, and what runs on a CPU that has none of them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention_kernels.hpp"

namespace dynamic_tinybert {
namespace {

size_t packed_size(size_t num_tokens, size_t dim) {
    return 2 * num_tokens * dim;
}

/// Keys of the real tokens, then their values, [num_tokens, dim] each.
void pack(const Head& head, float* packed) {
    for (const float* from : {head.key, head.value})
        for (size_t i = 0; i < head.num_tokens; ++i)
            packed = std::copy_n(from + head.tokens[i] * head.stride, head.dim, packed);
}

void attend(const Head& head, const float* packed, size_t first, size_t last, float* column_sums) {
    const size_t n = head.num_tokens, dim = head.dim;
    const float* keys = packed;
    const float* values = packed + n * dim;
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    thread_local std::vector<float> probabilities, context;
    probabilities.resize(n);
    if (column_sums)
        std::fill_n(column_sums, n, 0.0f);

    for (size_t i = first; i < last; ++i) {
        const float* query = head.query + head.tokens[i] * head.stride;
        float largest = -std::numeric_limits<float>::infinity();
        for (size_t j = 0; j < n; ++j) {
            float score = 0.0f;
            for (size_t k = 0; k < dim; ++k)
                score += query[k] * keys[j * dim + k];
            probabilities[j] = score * scale;
            largest = std::max(largest, probabilities[j]);
        }

        float sum = 0.0f;
        for (size_t j = 0; j < n; ++j) {
            probabilities[j] = std::exp(probabilities[j] - largest);
            sum += probabilities[j];
        }

        context.assign(dim, 0.0f);
        for (size_t j = 0; j < n; ++j) {
            const float probability = probabilities[j] / sum;
            if (column_sums)
                column_sums[j] += probability;
            for (size_t k = 0; k < dim; ++k)
                context[k] += probability * values[j * dim + k];
        }
        store_context(head, i, context.data(), 1.0f);
    }
}

}  // namespace

const AttentionKernels attention_scalar{packed_size, pack, attend};

}  // namespace dynamic_tinybert
