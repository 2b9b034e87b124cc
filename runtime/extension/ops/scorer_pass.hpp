#pragma once

#include <cstddef>
#include <vector>

#include "kernels/scorer_kernels.hpp"

namespace dynamic_tinybert {

/// Sizes of a learnt scorer's tensors.
struct ScorerShape {
    size_t width = 0;                  ///< Number of features, a multiple of scorer_columns.
    size_t heads = 0;                  ///< Number of similarities between a token and the question.
    size_t head_size = 0;              ///< Length of the keys that are compared for each similarity.
    std::vector<size_t> kernel_sizes;  ///< Width of each convolution in tokens, an odd number.

    size_t feature_panels() const { return width / scorer_columns; }
    size_t key_panels() const { return (heads * head_size + scorer_columns - 1) / scorer_columns; }
    /// Number of panels of all weights that states are multiplied by.
    size_t num_panels() const { return 2 * (feature_panels() + key_panels()); }
    size_t floats_of_panels(size_t hidden) const { return num_panels() * hidden * scorer_columns; }
    /// Number of floats of all tensors, panels included.
    size_t floats(size_t hidden) const;
};

/// The inputs of a batch, dense.
struct ScorerInputs {
    const float* state;         ///< [batch, length, hidden]
    const float* is_protected;  ///< [batch, length], not 0 for tokens of the question.
    const float* mask;          ///< [batch, length], 0 for real tokens, which come first in each sequence.
    size_t batch;
    size_t length;
    size_t hidden;
};

/// Computes the significance [batch, length] of each token: in [0, 1], plus `is_protected`.
///
/// `panels` holds, in this order, the panels of the first layer's weights for the state (feature_panels), of the
/// tokens' keys (key_panels), of the question's keys (key_panels), and of the first layer's weights for the mean state
/// of the question (feature_panels). `tensors` points to the scorer's other tensors, in the order of
/// LearntSignificance.
void compute_significance(const ScorerKernels& kernels, const ScorerShape& shape, const ScorerPanels& panels,
                          const float* tensors, const ScorerInputs& inputs, float* significance);

}  // namespace dynamic_tinybert
