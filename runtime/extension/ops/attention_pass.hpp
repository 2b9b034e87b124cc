#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/attention_kernels.hpp"
#include "ops/stages.hpp"

namespace dynamic_tinybert {

/// Attention of a batch: its sizes, inputs and outputs, all dense.
struct AttentionBatch {
    size_t batch;
    size_t length;   ///< Tokens of a sequence, L.
    size_t queries;  ///< Tokens of a sequence that have a query, the first Q.
    size_t width;    ///< Width D of query, key and value.
    size_t heads;    ///< D is a multiple of it.
    const float* projections;  ///< Query, key and value side by side, [batch, L, 3 D]; or with `query` [batch, L, 2 D].
    const float* query;        ///< [batch, Q, D]; null if the queries are in `projections`.
    const float* mask;         ///< [batch, L], 0 for real tokens.
    float* context;            ///< [batch, Q, D]; null if it is quantised.
    uint8_t* quantized;        ///< Likewise, context * inv_scale + zero_point; null if it is not quantised.
    float inv_scale;
    float zero_point;
    float* significance;  ///< [batch, L], to which probabilities are added; null if it is not needed.
};

/// Buffers of attention.
struct AttentionScratch {
    std::vector<int32_t> tokens;      // [B, L]: positions of the real tokens, then unused space
    std::vector<size_t> num_tokens;   // [B]
    std::vector<size_t> num_queries;  // [B]: how many of the real tokens have a query
    Aligned<float> packed;            // [B, heads, packed_size]
    Aligned<float> column_sums;       // [B, heads, blocks, L + column_padding]
};

/// Adds stages that compute the context and, unless it is null, the significance. The scratch must outlive them; stages
/// of several attentions may share it if their batches have the same sizes and mask.
void add_attention(Stages& stages, const AttentionKernels& kernels, const AttentionBatch& batch,
                   AttentionScratch& scratch);

}  // namespace dynamic_tinybert
