// The readable path: what the faster ones are compared with, and what runs on a CPU that has none of them.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/scalar.hpp"
#include "kernels/twelve_bits_scalar.hpp"

namespace dynamic_tinybert {
namespace {

constexpr float most_16_bits = 32767.0f;  // of a signed number

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

/// Keys and values as integers, [num_tokens, dim] each, then the units of the keys' tokens and of the values' columns.
struct Integers {
    int32_t *keys, *values;
    float *key_units, *value_units;

    Integers(float* packed, size_t n, size_t dim)
        : keys(reinterpret_cast<int32_t*>(packed)),
          values(keys + n * dim),
          key_units(packed + 2 * n * dim),
          value_units(key_units + n) {}
};

size_t packed_int16_size(size_t num_tokens, size_t dim) {
    return 2 * num_tokens * dim + num_tokens + dim;
}

/// Keys in 12 bits by token, values in 16 by column.
void pack_int16(const Head& head, float* packed) {
    const size_t n = head.num_tokens, dim = head.dim;
    const Integers to(packed, n, dim);
    for (size_t i = 0; i < n; ++i)
        to.key_units[i] = row_in_12_bits(head.key + head.tokens[i] * head.stride, dim, to.keys + i * dim);
    for (size_t k = 0; k < dim; ++k) {
        const auto value = [&](size_t i) { return head.value[head.tokens[i] * head.stride + k]; };
        float largest = 0.0f;
        for (size_t i = 0; i < n; ++i)
            largest = larger_or_nan(largest, std::fabs(value(i)));
        const float per_unit = largest == 0.0f ? 0.0f : most_16_bits / largest;
        for (size_t i = 0; i < n; ++i)
            to.values[i * dim + k] = in_units(value(i), per_unit, 32767);
        to.value_units[k] = largest / most_16_bits;
    }
}

/// Probabilities become integers of 16 bits before they are multiplied.
void attend_int16(const Head& head, const float* packed, size_t first, size_t last, float* column_sums) {
    const size_t n = head.num_tokens, dim = head.dim;
    const Integers of(const_cast<float*>(packed), n, dim);
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    std::vector<int32_t> query(dim);
    std::vector<float> scores(n), context(dim);
    if (column_sums)
        std::fill_n(column_sums, n, 0.0f);

    for (size_t i = first; i < last; ++i) {
        const float unit = row_in_12_bits(head.query + head.tokens[i] * head.stride, dim, query.data());
        float largest = -std::numeric_limits<float>::infinity();
        for (size_t j = 0; j < n; ++j) {
            int32_t sum = 0;
            for (size_t k = 0; k < dim; ++k)
                sum += query[k] * of.keys[j * dim + k];
            scores[j] = static_cast<float>(sum) * of.key_units[j] * (unit * scale);
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
            const int32_t units = in_units(probability, most_16_bits, 32767);
            for (size_t k = 0; k < dim; ++k)
                sums[k] += units * of.values[j * dim + k];
        }
        for (size_t k = 0; k < dim; ++k)  // NaN among the scores has no integer, and must not be hidden
            context[k] = std::isnan(total) ? total : static_cast<float>(sums[k]) * (of.value_units[k] / most_16_bits);
        store_context(head, i, context.data(), 1.0f);
    }
}

}  // namespace

const AttentionKernels attention_f32_scalar{.packed_size = packed_size, .pack = pack, .attend = attend};

const AttentionKernels attention_int16_scalar{
    .packed_size = packed_int16_size, .pack = pack_int16, .attend = attend_int16};

}  // namespace dynamic_tinybert
