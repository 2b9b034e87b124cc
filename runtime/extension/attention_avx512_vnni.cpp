// AVX-512 with VNNI: dot products of integers of 16 bits, two of them in the time of one in f32. Queries and keys are
// held to 12 bits, with a scale for each token and head, so that their products fit into 32; probabilities and values
// fill 16, with a scale for each column of the values.

#include <tbb/cache_aligned_allocator.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention_kernels.hpp"
#include "avx512_vnni.hpp"

namespace dynamic_tinybert {
namespace {

constexpr float most_16_bits = 32767.0f;  // of a signed number

static_assert(query_block % strip == 0 && column_padding >= lanes - 1);

/// What `pack` writes: keys in panels of 16 tokens, [dim / 2, 16, 2] each; a scale for each token; values in pairs of
/// tokens, [pairs, dim, 2]; a scale for each column. Tokens are filled up to 16, columns to 16, a key's to 2.
struct Packed {
    int16_t* keys;
    float* key_scales;
    int16_t* values;
    float* value_scales;
};

/// Floats of keys, their scales, values, their scales.
struct Sizes {
    size_t keys, key_scales, values, value_scales;
};

constexpr Sizes sizes(size_t num_tokens, size_t dim) {
    const size_t tokens = round_up(num_tokens, lanes), columns = round_up(dim, lanes);
    return {tokens * round_up(dim, 2) / 2, tokens, round_up(num_tokens, 2) / 2 * columns, columns};
}

size_t packed_size(size_t num_tokens, size_t dim) {
    const Sizes size = sizes(num_tokens, dim);
    return size.keys + size.key_scales + size.values + size.value_scales;
}

Packed parts(float* packed, size_t num_tokens, size_t dim) {
    const Sizes size = sizes(num_tokens, dim);
    float *key_scales = packed + size.keys, *values = key_scales + size.key_scales;
    return {reinterpret_cast<int16_t*>(packed), key_scales, reinterpret_cast<int16_t*>(values), values + size.values};
}

/// The larger; NaN if `x` is.
AVX512 inline __m512 larger(__m512 largest, __m512 x) {
    return _mm512_mask_mov_ps(_mm512_max_ps(x, largest), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

/// Four tokens of a panel, from `first` on; those that are not there get scale 0.
AVX512 void pack_keys(const Head& head, size_t first, int16_t* to, float* scales) {
    const float* rows[4];
    float per_unit[4];
    for (size_t i = 0; i < 4; ++i) {
        const bool there = first + i < head.num_tokens;
        rows[i] = head.key + head.tokens[there ? first + i : first] * head.stride;
        scales[i] = unit_of(rows[i], head.dim, per_unit[i]);
        if (!there)
            scales[i] = per_unit[i] = 0.0f;
    }
    const size_t pairs = round_up(head.dim, 2) / 2;
    for (size_t k = 0; k < pairs; k += 8) {
        __m256i row[4];  // eight pairs
        for (size_t i = 0; i < 4; ++i)
            row[i] = in_12_bits(rows[i] + 2 * k, head.dim - 2 * k, per_unit[i]);
        const __m256i low[2] = {_mm256_unpacklo_epi32(row[0], row[1]), _mm256_unpacklo_epi32(row[2], row[3])};
        const __m256i high[2] = {_mm256_unpackhi_epi32(row[0], row[1]), _mm256_unpackhi_epi32(row[2], row[3])};
        const __m256i column[4] = {
            _mm256_unpacklo_epi64(low[0], low[1]), _mm256_unpackhi_epi64(low[0], low[1]),
            _mm256_unpacklo_epi64(high[0], high[1]), _mm256_unpackhi_epi64(high[0], high[1])};
        for (size_t j = k; j < std::min(k + 8, pairs); ++j) {
            const __m256i both = column[(j - k) % 4];
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + j * 2 * lanes),
                             j - k < 4 ? _mm256_castsi256_si128(both) : _mm256_extracti128_si256(both, 1));
        }
    }
}

AVX512 void pack_values(const Head& head, size_t column, int16_t* to, float* scales) {
    const size_t columns = round_up(head.dim, lanes);
    const __mmask16 real = first_lanes(head.dim - column);
    const auto row = [&](size_t i) __attribute__((target("avx512f"))) {
        return _mm512_maskz_loadu_ps(real, head.value + head.tokens[i] * head.stride + column);
    };
    __m512 largest = _mm512_setzero_ps();
    for (size_t i = 0; i < head.num_tokens; ++i)
        largest = larger(largest, absolute(row(i)));
    const __m512 most = _mm512_set1_ps(most_16_bits);
    _mm512_storeu_ps(scales + column, _mm512_div_ps(largest, most));
    const __mmask16 some = _mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512 per_unit = _mm512_maskz_div_ps(some, most, largest);
    for (size_t i = 0; i < head.num_tokens; i += 2) {
        const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(row(i), per_unit));
        __m512i odd = _mm512_setzero_si512();
        if (i + 1 < head.num_tokens)
            odd = _mm512_cvtps_epi32(_mm512_mul_ps(row(i + 1), per_unit));
        const __m512i pair = _mm512_mask_mov_epi16(_mm512_slli_epi32(odd, 16), 0x55555555, even);
        _mm512_storeu_si512(to + (i / 2 * columns + column) * 2, pair);
    }
}

void pack(const Head& head, float* to) {
    const Packed packed = parts(to, head.num_tokens, head.dim);
    const size_t key_size = round_up(head.dim, 2), tokens = round_up(head.num_tokens, lanes);
    for (size_t first = 0; first < head.num_tokens; first += 4)
        pack_keys(head, first, packed.keys + first / lanes * lanes * key_size + first % lanes * 2,
                  packed.key_scales + first);
    for (size_t i = round_up(head.num_tokens, 4); i < tokens; ++i)
        packed.key_scales[i] = 0.0f;
    for (size_t column = 0; column < head.dim; column += lanes)
        pack_values(head, column, packed.values, packed.value_scales);
}

/// context[rows, panels * 16] of probabilities [rows, stride] and columns of the values, in their units.
template <int rows, int panels>
AVX512 inline void mix(const int16_t* probabilities, size_t stride, size_t pairs, const int16_t* values,
                       size_t columns, const float* scales, const float* factors, float* context,
                       size_t context_stride) {
    __m512i sum[rows][panels];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
        for (int p = 0; p < panels; ++p)
            sum[i][p] = _mm512_setzero_si512();
    for (size_t k = 0; k < pairs; ++k, values += 2 * columns) {
        __m512i value[panels];
        for (int p = 0; p < panels; ++p)
            value[p] = _mm512_loadu_si512(values + p * 2 * lanes);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i)
            for (int p = 0; p < panels; ++p)
                add_products_of_16_bits(sum[i][p], value[p],
                                        _mm512_set1_epi32(pair(probabilities + i * stride + 2 * k)));
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
        for (int p = 0; p < panels; ++p) {
            const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(scales + p * lanes), _mm512_set1_ps(factors[i]));
            _mm512_storeu_ps(context + i * context_stride + p * lanes,
                             _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][p]), scale));
        }
}

using Mix = void (*)(const int16_t*, size_t, size_t, const int16_t*, size_t, const float*, const float*, float*,
                     size_t);

/// By rows of the strip and panels, one less.
constexpr Mix mixes_of[strip][2] = {{mix<1, 1>, mix<1, 2>}, {mix<2, 1>, mix<2, 2>}, {mix<3, 1>, mix<3, 2>},
                                    {mix<4, 1>, mix<4, 2>}, {mix<5, 1>, mix<5, 2>}, {mix<6, 1>, mix<6, 2>}};

/// 2^x for x <= 0, to a relative 3e-6; NaN stays NaN.
AVX512 inline __m512 exp2_of_nonpositive(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    // Minimax polynomial of 2^f on [-0.5, 0.5], exact at 0.
    __m512 p = _mm512_set1_ps(9.582853142e-03f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.590642673e-02f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402409862e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931241932e-01f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/// The softmax of scores [n] times `scale`, a base-2 one: in 16 bits to `probabilities`, filled up with zeros to 16,
/// and as 2^(score - largest) in place of the scores. Returns one over the sum of these.
AVX512 float softmax(float* scores, size_t n, float scale, int16_t* probabilities) {
    const __m512 unit = _mm512_set1_ps(scale), none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 largest = none;
    for (size_t j = 0; j < n; j += lanes)
        largest = _mm512_max_ps(largest, _mm512_mask_loadu_ps(none, first_lanes(n - j), scores + j));
    const __m512 shift = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(largest)), unit);
    __m512 sum = _mm512_setzero_ps();
    for (size_t j = 0; j < n; j += lanes) {
        const __m512 score = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j), unit, shift);
        const __m512 power = _mm512_maskz_mov_ps(first_lanes(n - j), exp2_of_nonpositive(score));
        _mm512_storeu_ps(scores + j, power);
        sum = _mm512_add_ps(sum, power);
    }
    const float one_over_sum = 1.0f / _mm512_reduce_add_ps(sum);
    const __m512 per_unit = _mm512_set1_ps(one_over_sum * most_16_bits);
    for (size_t j = 0; j < n; j += lanes) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(scores + j), per_unit));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j), _mm512_cvtsepi32_epi16(whole));
    }
    return one_over_sum;
}

/// sums[j] = sum over rows of factors[row] * values[row, j]
AVX512 void add_columns(const float* values, size_t rows, size_t columns, size_t stride, const float* factors,
                        float* sums) {
    for (size_t j = 0; j < columns; j += lanes) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t i = 0; i < rows; ++i)
            sum = _mm512_fmadd_ps(_mm512_set1_ps(factors[i]), _mm512_loadu_ps(values + i * stride + j), sum);
        _mm512_storeu_ps(sums + j, sum);
    }
}

/// `store_context` in 8 bits.
AVX512 void quantize_context(const Head& head, size_t token, const float* context) {
    uint8_t* to = head.quantized + head.tokens[token] * head.context_stride;
    const __m512 units = _mm512_set1_ps(head.units), zero_point = _mm512_set1_ps(head.zero_point);
    for (size_t k = 0; k < head.dim; k += lanes) {
        __m512 x = _mm512_fmadd_ps(_mm512_loadu_ps(context + k), units, zero_point);
        x = _mm512_max_ps(_mm512_min_ps(_mm512_set1_ps(255.0f), x), _mm512_setzero_ps());
        _mm512_mask_cvtepi32_storeu_epi8(to + k, first_lanes(head.dim - k), _mm512_cvtps_epi32(x));
    }
}

/// Memory of one thread.
struct Buffers {
    template <typename T>
    using Aligned = std::vector<T, tbb::cache_aligned_allocator<T>>;

    Aligned<int16_t> queries;        // [query_block, dim], and room for 16 more
    Aligned<float> scores;           // [query_block, tokens]
    Aligned<int16_t> probabilities;  // [query_block, tokens]
    Aligned<float> context;          // [query_block, dim]
};

void attend(const Head& head, const float* from, size_t first, size_t last, float* column_sums) {
    const size_t rows = last - first, n = head.num_tokens, dim = head.dim;
    const size_t tokens = round_up(n, lanes), columns = round_up(dim, lanes), size = round_up(dim, 2);
    const size_t stride = (tokens / lanes | 1) * lanes;  // an odd number of cache lines: rows spread over all sets
    const Packed packed = parts(const_cast<float*>(from), n, dim);

    thread_local Buffers buffers;
    buffers.queries.resize(query_block * size + lanes);
    buffers.scores.resize(query_block * stride);
    buffers.probabilities.resize(query_block * stride);
    buffers.context.resize(query_block * columns);
    int16_t *queries = buffers.queries.data(), *probabilities = buffers.probabilities.data();
    float *scores = buffers.scores.data(), *context = buffers.context.data();

    float scales[query_block], one_over_sum[query_block], factors[query_block];
    for (size_t i = 0; i < rows; ++i)
        scales[i] = row_in_12_bits(head.query + head.tokens[first + i] * head.stride, dim, queries + i * size);
    multiply_12_bits(queries, rows, size, packed.keys, tokens, packed.key_scales, scores, stride);

    constexpr float log2_e = 1.44269504f;
    const float score_scale = log2_e / std::sqrt(static_cast<float>(dim));
    for (size_t i = 0; i < rows; ++i) {
        one_over_sum[i] = softmax(scores + i * stride, n, scales[i] * score_scale, probabilities + i * stride);
        // NaN among the scores has no integer, and must not be hidden.
        factors[i] = std::isnan(one_over_sum[i]) ? one_over_sum[i] : 1.0f / most_16_bits;
    }
    if (column_sums)
        add_columns(scores, rows, tokens, stride, one_over_sum, column_sums);

    for (size_t column = 0; column < columns; column += 2 * lanes)
        for (size_t i = 0; i < rows; i += strip)
            mixes_of[std::min(strip, rows - i) - 1][column + lanes < columns](
                probabilities + i * stride, stride, (n + 1) / 2, packed.values + 2 * column, columns,
                packed.value_scales + column, factors + i, context + i * columns + column, columns);
    for (size_t i = 0; i < rows; ++i)
        if (head.quantized)
            quantize_context(head, first + i, context + i * columns);
        else
            store_context(head, first + i, context + i * columns, 1.0f);
}

}  // namespace

const AttentionKernels attention_avx512_vnni{packed_size, pack, attend};

}  // namespace dynamic_tinybert
