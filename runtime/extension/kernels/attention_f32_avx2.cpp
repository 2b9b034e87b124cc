// Attention in f32 by AVX2 and FMA. Keys and values are packed in panels of 16 columns, as `multiply` reads them.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/arithmetic_avx2.hpp"
#include "kernels/f32_avx2.hpp"

namespace dynamic_tinybert {
namespace {

static_assert(query_block % strip == 0 && column_padding >= panel_width - 1);

/// Keys in panels of 16 tokens, [dim, 16] each; then values in panels of 16 columns, [num_tokens, 16] each.
size_t packed_size(size_t num_tokens, size_t dim) {
    return (panels(num_tokens) * dim + panels(dim) * num_tokens) * panel_width;
}

/// Transposes 8 columns of 8 rows into 8 rows that lie `panel_width` apart.
AVX2 void transpose_8x8(const float* const rows[8], float* to) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        const __m256 even = _mm256_loadu_ps(rows[i]), odd = _mm256_loadu_ps(rows[i + 1]);
        a[i] = _mm256_unpacklo_ps(even, odd);
        a[i + 1] = _mm256_unpackhi_ps(even, odd);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
            b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
            b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xEE);
        }
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * panel_width, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * panel_width, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}

/// Packs up to 8 tokens' keys into 8 columns of a panel; columns without a token become zero.
AVX2 void pack_keys(const Head& head, size_t first, float* to) {
    const size_t count = std::min<size_t>(8, head.num_tokens - first);
    const float* rows[8];
    for (size_t j = 0; j < 8; ++j)
        rows[j] = head.key + head.tokens[first + std::min(j, count - 1)] * head.stride;
    size_t k = 0;
    if (count == 8)
        for (; k + 8 <= head.dim; k += 8) {
            transpose_8x8(rows, to + k * panel_width);
            for (const float*& row : rows)
                row += 8;
        }
    for (size_t done = k; k < head.dim; ++k)
        for (size_t j = 0; j < 8; ++j)
            to[k * panel_width + j] = j < count ? rows[j][k - done] : 0.0f;
}

void pack(const Head& head, float* packed) {
    const size_t n = head.num_tokens, dim = head.dim;
    for (size_t first = 0; first < n; first += panel_width, packed += dim * panel_width) {
        pack_keys(head, first, packed);
        if (first + 8 < n)
            pack_keys(head, first + 8, packed + 8);
        else
            for (size_t k = 0; k < dim; ++k)
                std::memset(packed + k * panel_width + 8, 0, 8 * sizeof(float));
    }
    for (size_t column = 0; column < dim; column += panel_width) {
        const size_t count = std::min(panel_width, dim - column);
        for (size_t i = 0; i < n; ++i, packed += panel_width) {
            std::memcpy(packed, head.value + head.tokens[i] * head.stride + column, count * sizeof(float));
            std::memset(packed + count, 0, (panel_width - count) * sizeof(float));
        }
    }
}

/// Replaces a row of base-2 scores, whose length is a multiple of 16, by 2^(score - largest); returns 1 / their sum.
AVX2 float exponentiate(float* row, size_t columns) {
    __m256 largest[2] = {_mm256_loadu_ps(row), _mm256_loadu_ps(row + 8)};
    for (size_t j = panel_width; j < columns; j += panel_width) {
        largest[0] = _mm256_max_ps(largest[0], _mm256_loadu_ps(row + j));
        largest[1] = _mm256_max_ps(largest[1], _mm256_loadu_ps(row + j + 8));
    }
    const __m256 shift = _mm256_set1_ps(max_of(_mm256_max_ps(largest[0], largest[1])));
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t j = 0; j < columns; j += panel_width) {
        const __m256 left = exp2_of_nonpositive(_mm256_sub_ps(_mm256_loadu_ps(row + j), shift));
        const __m256 right = exp2_of_nonpositive(_mm256_sub_ps(_mm256_loadu_ps(row + j + 8), shift));
        _mm256_storeu_ps(row + j, left);
        _mm256_storeu_ps(row + j + 8, right);
        sum[0] = _mm256_add_ps(sum[0], left);
        sum[1] = _mm256_add_ps(sum[1], right);
    }
    return 1.0f / sum_of(_mm256_add_ps(sum[0], sum[1]));
}

/// sums[j] = sum over rows of factors[row] * values[row, j]
AVX2 void add_columns(const float* values, size_t rows, size_t columns, size_t stride, const float* factors,
                      float* sums) {
    for (size_t j = 0; j < columns; j += panel_width) {
        __m256 left = _mm256_setzero_ps(), right = _mm256_setzero_ps();
        for (size_t i = 0; i < rows; ++i) {
            const __m256 factor = _mm256_broadcast_ss(factors + i);
            left = _mm256_fmadd_ps(factor, _mm256_loadu_ps(values + i * stride + j), left);
            right = _mm256_fmadd_ps(factor, _mm256_loadu_ps(values + i * stride + j + 8), right);
        }
        _mm256_storeu_ps(sums + j, left);
        _mm256_storeu_ps(sums + j + 8, right);
    }
}

void scale(const float* from, size_t count, float factor, float* to) {
    for (size_t k = 0; k < count; ++k)
        to[k] = from[k] * factor;
}

void attend(const Head& head, const float* packed, size_t first, size_t last, float* column_sums) {
    const size_t rows = last - first, n = head.num_tokens, dim = head.dim;
    const size_t columns = panels(n) * panel_width, context_stride = panels(dim) * panel_width;
    const size_t stride = (panels(n) | 1) * panel_width;  // an odd number of cache lines: rows spread over all sets
    const float* keys = packed;
    const float* values = packed + dim * columns;

    thread_local Aligned<float> buffer;
    buffer.resize(query_block * (dim + stride + context_stride));
    float* queries = buffer.data();
    float* probabilities = queries + query_block * dim;  // not yet divided by their sum
    float* context = probabilities + query_block * stride;
    float one_over_sum[query_block];

    constexpr float log2_e = 1.44269504f;
    const float score_scale = log2_e / std::sqrt(static_cast<float>(dim));
    for (size_t i = 0; i < rows; ++i)
        scale(head.query + head.tokens[first + i] * head.query_stride, dim, score_scale, queries + i * dim);

    multiply(rows, n, dim, queries, dim, packed_panels(keys, dim), probabilities, stride);
    for (size_t i = 0; i < rows; ++i) {
        float* row = probabilities + i * stride;
        std::fill(row + n, row + columns, -std::numeric_limits<float>::infinity());
        one_over_sum[i] = exponentiate(row, columns);
    }
    if (column_sums)
        add_columns(probabilities, rows, columns, stride, one_over_sum, column_sums);
    multiply(rows, dim, n, probabilities, stride, packed_panels(values, n), context, context_stride);
    for (size_t i = 0; i < rows; ++i)
        store_context(head, first + i, context + i * context_stride, one_over_sum[i]);
}

}  // namespace

const AttentionKernels attention_f32_avx2{.packed_size = packed_size, .pack = pack, .attend = attend};

}  // namespace dynamic_tinybert
