#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// One attention head of one row of the batch. Only real tokens take part: padding does not exist here, so it
/// cannot change a bit of the result.
struct Head {
    const float* query;  ///< This head's columns of [tokens, stride], as are key, value and context.
    const float* key;
    const float* value;
    float* context;
    size_t stride;          ///< Floats from one token to the next.
    size_t dim;             ///< Columns of the head.
    const int32_t* tokens;  ///< Positions of the real tokens, ascending.
    size_t num_tokens;
};

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

extern const AttentionKernels attention_scalar;
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512_vnni;  // with integers

}  // namespace dynamic_tinybert
