#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

constexpr size_t panel_columns = 64;  ///< Columns of the weights that lie together; the last ones may be filling.
constexpr size_t depth_step = 4;      ///< Numbers of one column that lie side by side.

/// Panels of a product's columns.
constexpr size_t panels_of(size_t width) {
    return (width + panel_columns - 1) / panel_columns;
}

/// A matrix product of 8 bits, and what becomes of its sums.
struct Linear {
    const int8_t* weights;  ///< As `pack` of the same kernels leaves them, at a multiple of 64 bytes.
    const float* scale;     ///< Of a column's sums.
    const float* bias;      ///< Added to them then.
    const float* per_unit;  ///< Of gelu of the result, to be quantised, units in 1, by column; null leaves it as it is.
    float zero_point;       ///< Of the quantised result.
    size_t depth;           ///< Of the sums, a multiple of 4.
    size_t width;           ///< Columns of the result.
};

struct LinearKernels {
    /// Bytes that `pack` writes, a multiple of 64: at least those of all panels, 64 * depth each.
    size_t (*packed_size)(const int8_t* weights, size_t width, size_t depth);
    /// Lays out weights [width, depth] as `multiply_panel` reads them.
    void (*pack)(const int8_t* weights, size_t width, size_t depth, int8_t* packed);
    /// Rows of to = from * per_unit + zero_point, rounded to even and held within 0 ... 255.
    void (*quantize_rows)(const float* from, const float* per_unit, float zero_point, size_t rows, size_t depth,
                          uint8_t* to);
    /// One panel's columns of rows [rows, depth] * weights, to rows of `width` in one of the two outputs.
    void (*multiply_panel)(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                           uint8_t* quantized);
};

}  // namespace dynamic_tinybert
