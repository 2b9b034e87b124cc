#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/quantize.hpp"

namespace dynamic_tinybert {

/// One attention head of one row of the batch. Only real tokens take part: padding does not exist here, so it
/// cannot change a bit of the result.
struct Head {
    const float* query;  ///< This head's columns of [tokens, stride], as are key and value.
    const float* key;
    const float* value;
    size_t stride;           ///< Floats from one token to the next.
    float* context;          ///< This head's columns of [tokens, context_stride]; null if it is quantised.
    uint8_t* quantized;      ///< The same in 8 bits, or null.
    size_t context_stride;   ///< Numbers from one token to the next.
    float units, zero_point; ///< Of the quantised context: how many units are in 1, and what 0 becomes.
    size_t dim;              ///< Columns of the head.
    const int32_t* tokens;   ///< Positions of the real tokens, ascending.
    size_t num_tokens;
};

/// Writes what a head's token, by its index among the real ones, attends to: factor * context [dim].
inline void store_context(const Head& head, size_t token, const float* context, float factor) {
    const size_t at = head.tokens[token] * head.context_stride;
    for (size_t k = 0; k < head.dim; ++k)
        if (head.quantized)
            head.quantized[at + k] = quantize(context[k] * factor * head.units + head.zero_point);
        else
            head.context[at + k] = context[k] * factor;
}

/// Query rows of one work item. Fixed, so that sums are formed alike for any number of threads.
constexpr size_t query_block = 48;

/// Column sums of a work item have room for this many floats more than there are tokens.
constexpr size_t column_padding = 16;

/// Attention by one instruction set.
struct AttentionKernels {
    /// Floats that `pack` writes.
    size_t (*packed_size)(size_t num_tokens, size_t dim);
    /// Lays out the real tokens' keys and values as `attend` reads them.
    void (*pack)(const Head& head, float* packed);
    /// Writes the context of the real tokens first ... last - 1, at most `query_block` of them, and, unless
    /// null, `column_sums`: for each real token the attention probability that it receives from them.
    void (*attend)(const Head& head, const float* packed, size_t first, size_t last, float* column_sums);
};

}  // namespace dynamic_tinybert
