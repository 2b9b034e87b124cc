// Attention by dot products of 16-bit integers, which take half the time of those in f32. Queries and keys are
// quantised to 12 bits with a scale for each token and head, so that sums of their products fit into 32 bits;
// probabilities and values take 16 bits, with a scale for each column of the values.

namespace dynamic_tinybert {
namespace {

constexpr float most_16_bits = 32767.0f;  // largest signed integer

static_assert(query_block % strip == 0 && column_padding >= 15);

/// What `pack` writes: keys in panels of one vector of tokens, [dim / 2, lanes, 2] each; a scale for each token; values
/// in pairs of tokens, [pairs, dim, 2]; a scale for each column. The keys' tokens and the values' columns are padded to
/// a multiple of 16, the keys' columns to a multiple of 2.
struct Packed {
    int16_t* keys;
    float* key_scales;
    int16_t* values;
    float* value_scales;
};

/// The size of each part of `Packed`, in floats.
struct Sizes {
    size_t keys, key_scales, values, value_scales;
};

constexpr Sizes sizes(size_t num_tokens, size_t dim) {
    const size_t tokens = round_up(num_tokens, 16), columns = round_up(dim, 16);
    return {tokens * round_up(dim, 2) / 2, tokens, round_up(num_tokens, 2) / 2 * columns, columns};
}

size_t packed_head_size(size_t num_tokens, size_t dim) {
    const Sizes size = sizes(num_tokens, dim);
    return size.keys + size.key_scales + size.values + size.value_scales;
}

Packed parts(float* packed, size_t num_tokens, size_t dim) {
    const Sizes size = sizes(num_tokens, dim);
    float *key_scales = packed + size.keys, *values = key_scales + size.key_scales;
    return {reinterpret_cast<int16_t*>(packed), key_scales, reinterpret_cast<int16_t*>(values), values + size.values};
}

/// Packs the keys of four tokens from `first` on; tokens beyond the last one get scale 0.
void pack_keys(const Head& head, size_t first, int16_t* to, float* scales) {
    const float* rows[4];
    float inv_scale[4];
    for (size_t i = 0; i < 4; ++i) {
        const bool there = first + i < head.num_tokens;
        rows[i] = head.key + head.tokens[there ? first + i : first] * head.stride;
        scales[i] = scale_of(rows[i], head.dim, inv_scale[i]);
        if (!there)
            scales[i] = inv_scale[i] = 0.0f;
    }
    const size_t pairs = round_up(head.dim, 2) / 2;
    for (size_t k = 0; k < pairs; k += 8) {
        __m256i row[4];  // eight pairs
        for (size_t i = 0; i < 4; ++i)
            row[i] = in_12_bits(rows[i], head.dim, 2 * k, inv_scale[i]);
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

/// Packs one vector of columns of the values.
void pack_values(const Head& head, size_t column, int16_t* to, float* scales) {
    const size_t columns = round_up(head.dim, 16), real = left_of(head.dim, column);
    const auto row = [&](size_t i) {
        return load_first(head.value + head.tokens[i] * head.stride + column, real);
    };
    Floats largest = all(0.0f);
    for (size_t i = 0; i < head.num_tokens; ++i) {
        const Floats x = absolute(row(i));
        largest = choose(is_nan(x), x, larger(x, largest));
    }
    Floats inv_scale;
    store(scales + column, scales_of(largest, most_16_bits, inv_scale));
    for (size_t i = 0; i < head.num_tokens; i += 2) {
        const Ints odd = i + 1 < head.num_tokens ? to_nearest(mul(row(i + 1), inv_scale)) : no_ints();
        store_ints(to + (i / 2 * columns + column) * 2, pair_up(to_nearest(mul(row(i), inv_scale)), odd));
    }
}

void pack_head(const Head& head, float* to) {
    const Packed packed = parts(to, head.num_tokens, head.dim);
    const size_t key_size = round_up(head.dim, 2), tokens = round_up(head.num_tokens, 16);
    for (size_t first = 0; first < head.num_tokens; first += 4)
        pack_keys(head, first, packed.keys + first / lanes * lanes * key_size + first % lanes * 2,
                  packed.key_scales + first);
    for (size_t i = round_up(head.num_tokens, 4); i < tokens; ++i)
        packed.key_scales[i] = 0.0f;
    for (size_t column = 0; column < round_up(head.dim, 16); column += lanes)
        pack_values(head, column, packed.values, packed.value_scales);
}

/// 2^x for x <= 0, with a relative error of 3e-6. NaN stays NaN.
inline Floats exp2_of_nonpositive(Floats x) {
    const Floats whole = rounded(x), f = sub(x, whole);
    // Minimax polynomial of 2^f on [-0.5, 0.5], exact at 0.
    Floats p = all(9.582853142e-03f);
    p = mul_add(p, f, all(5.590642673e-02f));
    p = mul_add(p, f, all(2.402409862e-01f));
    p = mul_add(p, f, all(6.931241932e-01f));
    p = mul_add(p, f, all(1.0f));
    return times_power(p, whole);
}

/// Base-2 softmax of scores [n] times `scale`. Writes the probabilities in 16 bits, padded with zeros to a multiple of
/// 16; replaces the scores by 2^(score - largest), and returns 1 / the sum of these.
float softmax(float* scores, size_t n, float scale, int16_t* probabilities) {
    const Floats factor = all(scale), none = all(-std::numeric_limits<float>::infinity());
    Floats largest = none;
    for (size_t j = 0; j < n; j += lanes)
        largest = larger(largest, first_of(n - j, load(scores + j), none));
    const Floats shift = mul(all(largest_of(largest)), factor);
    const Floats zero = all(0.0f);
    Floats sum[sixteen];
    for (size_t v = 0; v < sixteen; ++v)
        sum[v] = zero;
    for (size_t j = 0; j < n; j += 16)
        for (size_t v = 0; v < sixteen; ++v) {
            float* at = scores + j + v * lanes;
            const Floats score = mul_sub(load(at), factor, shift);
            const Floats power = first_of(left_of(n, j + v * lanes), exp2_of_nonpositive(score), zero);
            store(at, power);
            sum[v] = add(sum[v], power);
        }
    const float one_over_sum = 1.0f / sum_of(sum);
    const Floats inv_scale = all(one_over_sum * most_16_bits);
    for (size_t j = 0; j < n; j += 16) {
        Ints quantized[sixteen];
        for (size_t v = 0; v < sixteen; ++v)
            quantized[v] = to_nearest(mul(load(scores + j + v * lanes), inv_scale));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j), to_16_bits(quantized));
    }
    return one_over_sum;
}

/// sums[j] = sum over rows of factors[row] * values[row, j]
void add_columns(const float* values, size_t rows, size_t columns, size_t stride, const float* factors, float* sums) {
    for (size_t j = 0; j < columns; j += lanes) {
        Floats sum = all(0.0f);
        for (size_t i = 0; i < rows; ++i)
            sum = mul_add(all(factors[i]), load(values + i * stride + j), sum);
        store(sums + j, sum);
    }
}

/// Does what `store_context` does for a quantised context.
void quantize_context(const Head& head, size_t token, const float* context) {
    uint8_t* to = head.quantized + head.tokens[token] * head.context_stride;
    const Floats inv_scale = all(head.inv_scale), zero_point = all(head.zero_point);
    for (size_t k = 0; k < head.dim; k += lanes)
        store_in_8_bits(to + k, mul_add(load(context + k), inv_scale, zero_point), head.dim - k);
}

/// Buffers of one thread.
struct Buffers {
    Aligned<int16_t> queries;        // [query_block, dim], and room for 16 more
    Aligned<float> scores;           // [query_block, tokens]
    Aligned<int16_t> probabilities;  // [query_block, tokens]
    Aligned<float> context;          // [query_block, dim]
};

void attend(const Head& head, const float* from, size_t first, size_t last, float* column_sums) {
    const size_t rows = last - first, n = head.num_tokens, dim = head.dim;
    const size_t tokens = round_up(n, 16), columns = round_up(dim, 16), size = round_up(dim, 2);
    const size_t stride = (tokens / 16 | 1) * 16;  // an odd number of cache lines: rows spread over all sets
    const Packed packed = parts(const_cast<float*>(from), n, dim);

    thread_local Buffers buffers;
    buffers.queries.resize(query_block * size + 16);
    buffers.scores.resize(query_block * stride);
    buffers.probabilities.resize(query_block * stride);
    buffers.context.resize(query_block * columns);
    int16_t *queries = buffers.queries.data(), *probabilities = buffers.probabilities.data();
    float *scores = buffers.scores.data(), *context = buffers.context.data();

    float scales[query_block], one_over_sum[query_block], factors[query_block];
    for (size_t i = 0; i < rows; ++i)
        scales[i] = row_in_12_bits(head.query + head.tokens[first + i] * head.query_stride, dim, queries + i * size);
    multiply_16_bits(queries, size, rows, size / 2, in_panels(packed.keys, size, packed.key_scales), tokens, nullptr,
                     scores, stride);

    constexpr float log2_e = 1.44269504f;
    const float score_scale = log2_e / std::sqrt(static_cast<float>(dim));
    for (size_t i = 0; i < rows; ++i) {
        one_over_sum[i] = softmax(scores + i * stride, n, scales[i] * score_scale, probabilities + i * stride);
        // Integers cannot represent NaN, so a NaN among the scores reaches the context through this factor.
        factors[i] = std::isnan(one_over_sum[i]) ? one_over_sum[i] : 1.0f / most_16_bits;
    }
    if (column_sums)
        add_columns(scores, rows, tokens, stride, one_over_sum, column_sums);

    const Columns values{packed.values, 2 * columns, 2 * lanes, packed.value_scales};
    multiply_16_bits(probabilities, stride, rows, (n + 1) / 2, values, columns, factors, context, columns);
    for (size_t i = 0; i < rows; ++i)
        if (head.quantized)
            quantize_context(head, first + i, context + i * columns);
        else
            store_context(head, first + i, context + i * columns, 1.0f);
}

const AttentionKernels attention_int16{.packed_size = packed_head_size, .pack = pack_head, .attend = attend};

}  // namespace
}  // namespace dynamic_tinybert
