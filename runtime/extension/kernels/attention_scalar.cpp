// Reference kernels, written for readability: the faster ones are compared with them, and CPUs that run no other use
// them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/scalar.hpp"
#include "kernels/twelve_bits_scalar.hpp"

namespace dynamic_tinybert {
namespace {

constexpr float most_16_bits = 32767.0f;  // largest signed integer

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
        const float* query = head.query + head.tokens[i] * head.query_stride;
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

/// Keys and values as integers, [num_tokens, dim] each, then the scales of the keys by token and of the values by
/// column.
struct Integers {
    int32_t *keys, *values;
    float *key_scales, *value_scales;

    Integers(float* packed, size_t n, size_t dim)
        : keys(reinterpret_cast<int32_t*>(packed)),
          values(keys + n * dim),
          key_scales(packed + 2 * n * dim),
          value_scales(key_scales + n) {}
};

size_t packed_int16_size(size_t num_tokens, size_t dim) {
    return 2 * num_tokens * dim + num_tokens + dim;
}

/// Quantises keys to 12 bits with a scale for each token, and values to 16 bits with a scale for each column.
void pack_int16(const Head& head, float* packed) {
    const size_t n = head.num_tokens, dim = head.dim;
    const Integers to(packed, n, dim);
    for (size_t i = 0; i < n; ++i)
        to.key_scales[i] = row_in_12_bits(head.key + head.tokens[i] * head.stride, dim, to.keys + i * dim);
    for (size_t k = 0; k < dim; ++k) {
        const auto value = [&](size_t i) { return head.value[head.tokens[i] * head.stride + k]; };
        float largest = 0.0f;
        for (size_t i = 0; i < n; ++i)
            largest = larger_or_nan(largest, std::fabs(value(i)));
        const float inv_scale = largest == 0.0f ? 0.0f : most_16_bits / largest;
        for (size_t i = 0; i < n; ++i)
            to.values[i * dim + k] = quantized_to(value(i), inv_scale, 32767);
        to.value_scales[k] = largest / most_16_bits;
    }
}

/// Probabilities are quantised to 16 bits before they are multiplied.
void attend_int16(const Head& head, const float* packed, size_t first, size_t last, float* column_sums) {
    const size_t n = head.num_tokens, dim = head.dim;
    const Integers integers(const_cast<float*>(packed), n, dim);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    std::vector<int32_t> query(dim);
    std::vector<float> scores(n), context(dim);
    if (column_sums)
        std::fill_n(column_sums, n, 0.0f);

    for (size_t i = first; i < last; ++i) {
        const float query_scale = row_in_12_bits(head.query + head.tokens[i] * head.query_stride, dim, query.data());
        float largest = -std::numeric_limits<float>::infinity();
        for (size_t j = 0; j < n; ++j) {
            int32_t sum = 0;
            for (size_t k = 0; k < dim; ++k)
                sum += query[k] * integers.keys[j * dim + k];
            scores[j] = static_cast<float>(sum) * integers.key_scales[j] * (query_scale * scale);
            largest = std::max(largest, scores[j]);
        }

        float total = 0.0f;
        for (float& score : scores)
            total += score = std::exp(score - largest);

        std::vector<int32_t> sums(dim);
        for (size_t j = 0; j < n; ++j) {
            const float probability = scores[j] / total;
            if (column_sums)
                column_sums[j] += probability;
            const int32_t quantized = quantized_to(probability, most_16_bits, 32767);
            for (size_t k = 0; k < dim; ++k)
                sums[k] += quantized * integers.values[j * dim + k];
        }
        for (size_t k = 0; k < dim; ++k)  // integers cannot represent NaN: a NaN among the scores is passed on here
            context[k] =
                std::isnan(total) ? total : static_cast<float>(sums[k]) * (integers.value_scales[k] / most_16_bits);
        store_context(head, i, context.data(), 1.0f);
    }
}

}  // namespace

const AttentionKernels attention_f32_scalar{.packed_size = packed_size, .pack = pack, .attend = attend};

const AttentionKernels attention_int16_scalar{
    .packed_size = packed_int16_size, .pack = pack_int16, .attend = attend_int16};

}  // namespace dynamic_tinybert
