#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace dynamic_tinybert {

/// Columns of a panel; a scorer's width is a multiple of it.
constexpr size_t scorer_columns = 16;

/// The right side of products with states.
struct ScorerPanels {
    const float* columns;  ///< [count, depth, scorer_columns]
    const float* packed;   ///< What `pack` makes of them.
    size_t depth;
    size_t count;
};

/// What the first features of one sequence come from, beside its projected states.
struct FirstLayer {
    const float* bias;  ///< What the question as a whole adds, [width].
    /// What its tokens are compared by, [heads, num_asked / scorer_columns, head_size, scorer_columns].
    const float* asked;
    const float* mix;  ///< [heads, width]
    size_t num_asked;  ///< The question's tokens, the last one repeated up to a multiple of scorer_columns.
    size_t heads;
    size_t head_size;
    size_t stride;  ///< From one projected row to the next.
};

/// Looks at neighbouring tokens: features + relu(mix * (convolution over positions) + bias).
struct Neighbourhood {
    const float* kernel;  ///< Depthwise convolution, [size, width].
    const float* bias;    ///< Of the convolution, [width].
    const float* mix;     ///< [width, width], a row for each input.
    const float* mix_bias;
    size_t size;  ///< Odd: positions that the convolution sees.
};

/// Scorers of learnt significance by one instruction set. All arrays are dense, a row for each token.
struct ScorerKernels {
    /// Floats that packed panels take.
    size_t (*packed_size)(size_t depth, size_t count);
    /// Lays out one panel as `project` reads it, in its place in `packed`.
    void (*pack)(const ScorerPanels& panels, size_t panel, float* packed);
    /// to[row, 16 * count] = state[row, depth] * panels first ... first + count - 1; rows of `to` lie `stride` apart.
    void (*project)(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
                    size_t stride);
    /// features[row, width] = relu(projected + bias + likeness * mix), where likeness [heads] is how like a token is
    /// to that of the question's tokens which is most like it; 0 if there are none. A row that was projected holds
    /// width numbers and then those that the token is compared by, one head after the other.
    void (*features)(const FirstLayer& first, const float* projected, size_t rows, size_t width, float* features);
    /// Rows first ... last - 1 of what `neighbourhood` makes of the features of `length` tokens; beyond the
    /// ends lie zeros.
    void (*look_around)(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                        size_t first, size_t last, float* to);
};

/// In integers, the largest number of a column: so many products of it and of 12 bits, at most 2047, fit into 32 bits.
inline float most_of_column(size_t depth) {
    const float most = static_cast<float>(std::numeric_limits<int32_t>::max()) / 2047.0f / static_cast<float>(depth);
    return std::min(2047.0f, std::floor(most));
}

}  // namespace dynamic_tinybert
