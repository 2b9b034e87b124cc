#pragma once

#include <cstddef>
#include <vector>

#include "kernels/attention_kernels.hpp"
#include "ops/linear_chain.hpp"

namespace dynamic_tinybert {

/// Half of an encoder layer: attention with its output projection, or the feed-forward part.
struct EncoderHalf {
    const BoundChain* first = nullptr;   ///< Query, key and value side by side; or the feed-forward part.
    const BoundChain* output = nullptr;  ///< Attention's output projection; null in a feed-forward half.
    float inv_scale = 0.0f;              ///< By which attention quantises its context.
};

/// Sizes, inputs and output of a batch, all dense.
struct EncoderBatch {
    size_t batch;
    size_t length;
    size_t hidden;
    size_t heads;
    const float* state;  ///< [batch, length, hidden]
    const float* mask;   ///< [batch, length], 0 for real tokens.
    float* result;       ///< [batch, length, hidden]
};

/// Computes consecutive halves.
void compute_halves(const AttentionKernels& attention, const std::vector<EncoderHalf>& halves,
                    const EncoderBatch& batch);

}  // namespace dynamic_tinybert
