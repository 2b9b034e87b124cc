#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

constexpr size_t panel_columns = 64;  ///< Columns of the weights that lie together; the last ones may be filling.
constexpr size_t depth_step = 4;      ///< Numbers of one column that lie side by side.

/// A matrix product of 8 bits, and what becomes of its sums.
struct Linear {
    const int8_t* weights;  ///< [panels, depth / 4, 64, 4].
    const float* scale;     ///< Of a column's sums.
    const float* bias;      ///< Added to them then.
    const float* per_unit;  ///< Of gelu of the result, to be quantised, units in 1, by column; null leaves it as it is.
    float zero_point;       ///< Of the quantised result.
    size_t depth;           ///< Of the sums, a multiple of 4.
    size_t width;           ///< Columns of the result.
};

struct LinearKernels {
    /// Rows of to = from * per_unit + zero_point, rounded to even and held within 0 ... 255.
    void (*quantize_rows)(const float* from, const float* per_unit, float zero_point, size_t rows, size_t depth,
                          uint8_t* to);
    /// One panel's columns of rows [rows, depth] * weights, to rows of `width` in one of the two outputs.
    void (*multiply_panel)(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                           uint8_t* quantized);
};

extern const LinearKernels linear_scalar, linear_avx512_vnni;

}  // namespace dynamic_tinybert
