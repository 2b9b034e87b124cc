#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/quantize.hpp"

namespace dynamic_tinybert {

/// One attention head of one sequence. Kernels only see its real tokens, so that padding cannot change a bit of the
/// result.
struct Head {
    const float* query;  ///< This head's columns of [tokens, query_stride].
    size_t query_stride;  ///< Number of floats from the query of one token to that of the next.
    const float* key;     ///< This head's columns of [tokens, stride]; likewise value.
    const float* value;
    size_t stride;          ///< Number of floats from the key or value of one token to that of the next.
    float* context;         ///< Output, this head's columns of [tokens, context_stride]; null if it is quantised.
    uint8_t* quantized;     ///< Output quantised to 8 bits, in the same layout; null if it is not quantised.
    size_t context_stride;  ///< Number of output values from one token to the next.
    float inv_scale;        ///< Quantised output = context * inv_scale + zero_point.
    float zero_point;
    size_t dim;             ///< Number of columns of the head.
    const int32_t* tokens;  ///< Positions of the real tokens, ascending.
    size_t num_tokens;
};

/// Writes factor * context [dim] as the output of a token, given by its index among the real ones.
inline void store_context(const Head& head, size_t token, const float* context, float factor) {
    const size_t at = head.tokens[token] * head.context_stride;
    for (size_t k = 0; k < head.dim; ++k)
        if (head.quantized)
            head.quantized[at + k] = quantize(context[k] * factor * head.inv_scale + head.zero_point);
        else
            head.context[at + k] = context[k] * factor;
}

/// Number of query rows of a work item. It is constant, so that the number of threads does not change the order of
/// additions.
constexpr size_t query_block = 48;

/// The column sums of a work item have room for this many floats beyond the number of tokens.
constexpr size_t column_padding = 16;

/// Attention kernels of one instruction set.
struct AttentionKernels {
    /// Number of floats that `pack` writes.
    size_t (*packed_size)(size_t num_tokens, size_t dim);
    /// Lays out the real tokens' keys and values as `attend` reads them.
    void (*pack)(const Head& head, float* packed);
    /// Writes the context of the real tokens first ... last - 1, at most `query_block` of them; and to `column_sums`,
    /// unless null, the attention probability that each real token receives from them.
    void (*attend)(const Head& head, const float* packed, size_t first, size_t last, float* column_sums);
};

}  // namespace dynamic_tinybert
