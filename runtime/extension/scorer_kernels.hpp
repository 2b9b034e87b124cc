#pragma once

#include <cstddef>

namespace dynamic_tinybert {

/// Columns of a panel; a scorer's width is a multiple of it.
constexpr size_t scorer_columns = 16;

/// The first layer of a scorer, for one sequence. Panels are [hidden, scorer_columns].
struct FirstLayer {
    const float* panels;    ///< Weights with the question folded in, width / 16 panels with a row more: the bias.
    const float* token;     ///< Of what is compared, a panel for each component and 16 heads.
    const float* question;  ///< What the question's tokens are compared by, [num_question, components].
    const float* mix;       ///< [heads, width]
    size_t num_question;
    size_t heads;       ///< A multiple of scorer_columns.
    size_t components;  ///< heads times their size: first all heads' first component, then their second.
};

/// Looks at neighbouring tokens: features + gelu(mix * (convolution over positions) + bias).
struct Neighbourhood {
    const float* kernel;  ///< Depthwise convolution, [size, width].
    const float* bias;    ///< Of the convolution, [width].
    const float* mix;     ///< [width, width], a row for each input.
    const float* mix_bias;
    size_t size;  ///< Odd: positions that the convolution sees.
};

/// Scorers of learnt significance by one instruction set. All arrays are dense, a row for each token.
struct ScorerKernels {
    /// One panel of the first layer with the question's mean folded in: by_state + mean * by_product, where
    /// mean scales the rows, and behind it one row more, bias + mean * by_question. Weights are panels
    /// [hidden, scorer_columns], as is what it writes.
    void (*fold)(const float* by_state, const float* by_product, const float* by_question, const float* bias,
                 const float* mean, size_t hidden, float* panel);
    /// to[rows, columns] = state[rows, hidden] * panels
    void (*project)(const float* state, size_t rows, size_t hidden, const float* panels, size_t columns, float* to);
    /// features[rows, width] = gelu(state * panels + bias + likeness * mix), where likeness [heads] is how like a
    /// token is to that of the question's tokens which is most like it; 0 if there are none.
    void (*features)(const float* state, size_t rows, size_t hidden, size_t width, const FirstLayer& first,
                     float* features);
    /// Rows first ... last - 1 of what `neighbourhood` makes of the features of `length` tokens; beyond the
    /// ends lie zeros.
    void (*look_around)(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                        size_t first, size_t last, float* to);
};

extern const ScorerKernels scorer_scalar;
extern const ScorerKernels scorer_avx2;

}  // namespace dynamic_tinybert
