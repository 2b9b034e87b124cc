#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace dynamic_tinybert {

/// Columns of a panel; a scorer's width is a multiple of it.
constexpr size_t scorer_columns = 16;

/// The matrix that states are multiplied by.
struct ScorerPanels {
    const float* columns;  ///< [count, depth, scorer_columns]
    const float* packed;   ///< The columns as `pack` writes them.
    size_t depth;
    size_t count;
};

/// Inputs of a sequence's first features, besides its projected states.
struct FirstLayer {
    const float* bias;  ///< Bias of the first layer plus the contribution of the question's mean state, [width].
    /// Keys of the question's tokens, [heads, num_keys / scorer_columns, head_size, scorer_columns].
    const float* question_keys;
    const float* mix;  ///< Weights of the similarities, [heads, width].
    size_t num_keys;   ///< The number of the question's tokens, rounded up to scorer_columns; the last key is repeated.
    size_t heads;
    size_t head_size;
    size_t stride;  ///< Floats from one projected row to the next.
};

/// A residual layer over neighbouring tokens: features + relu(mix * (convolution over positions) + mix_bias).
struct Neighbourhood {
    const float* kernel;  ///< Depthwise convolution, [size, width].
    const float* bias;    ///< Bias of the convolution, [width].
    const float* mix;     ///< Mixing matrix, [width inputs, width outputs].
    const float* mix_bias;
    size_t size;  ///< Width of the convolution in tokens, an odd number.
};

/// Kernels of learnt significance for one instruction set. All arrays are dense, with a row for each token.
struct ScorerKernels {
    /// Number of floats that `count` packed panels take.
    size_t (*packed_size)(size_t depth, size_t count);
    /// Writes one panel to its place in `packed`, in the layout that `project` reads.
    void (*pack)(const ScorerPanels& panels, size_t panel, float* packed);
    /// to[row, 16 * count] = state[row, depth] * panels[first ... first + count - 1]; rows of `to` lie `stride` apart.
    void (*project)(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
                    size_t stride);
    /// features[row, width] = relu(projected + bias + similarity * mix). The similarity [heads] of a token is the
    /// largest dot product of its key with those of the question's tokens, 0 if there are none. A projected row holds
    /// `width` numbers followed by the token's key, head by head.
    void (*features)(const FirstLayer& first, const float* projected, size_t rows, size_t width, float* features);
    /// Applies `neighbourhood` to the features of `length` tokens, with zeros beyond the ends, and writes rows
    /// first ... last - 1.
    void (*convolve_mix)(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                        size_t first, size_t last, float* to);
};

/// The largest integer that a column of `depth` weights may hold, so that the sum of its products with integers of at
/// most 2047 fits into 32 bits.
inline float most_of_column(size_t depth) {
    const float most = static_cast<float>(std::numeric_limits<int32_t>::max()) / 2047.0f / static_cast<float>(depth);
    return std::min(2047.0f, std::floor(most));
}

}  // namespace dynamic_tinybert
