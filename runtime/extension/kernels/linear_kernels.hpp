#pragma once

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

constexpr size_t panel_columns = 64;  ///< Columns of the weights in one panel; the last panel may be padded with zeros.
constexpr size_t depth_step = 4;      ///< Numbers of one column that lie side by side in a panel.

/// Number of panels that hold a product's columns.
constexpr size_t panels_of(size_t width) {
    return (width + panel_columns - 1) / panel_columns;
}

/// A linear layer on 8-bit rows: y = sums * scale + bias, where sums are dot products of 8-bit integers. With
/// `inv_scale`, the result is quantised: gelu(y) * inv_scale + zero_point, rounded to even and clamped to 0 ... 255.
struct Linear {
    const int8_t* weights;   ///< Packed by the same kernels, 64-byte aligned.
    const float* scale;      ///< Scale of each column, [width].
    const float* bias;       ///< Bias of each column, [width].
    const float* inv_scale;  ///< 1 / scale of each quantised column, [width]; null for a result y in f32, without GELU.
    float zero_point;        ///< Zero point of the quantised result.
    size_t depth;            ///< Length of a row, a multiple of 4.
    size_t width;            ///< Number of columns of the result.
};

/// Kernels of linear layers for one instruction set.
struct LinearKernels {
    /// Number of bytes that `pack` writes: a multiple of 64, and at least 64 * depth for each panel.
    size_t (*packed_size)(const int8_t* weights, size_t width, size_t depth);
    /// Writes weights [width, depth] in the layout that `multiply_panel` reads.
    void (*pack)(const int8_t* weights, size_t width, size_t depth, int8_t* packed);
    /// to[rows, depth] = from[rows, depth] * inv_scale[depth] + zero_point, rounded to even and clamped to 0 ... 255.
    void (*quantize_rows)(const float* from, const float* inv_scale, float zero_point, size_t rows, size_t depth,
                          uint8_t* to);
    /// Computes one panel's columns of the layer for from [rows, depth]. Writes them to `result` [rows, width], or to
    /// `quantized` [rows, width] if the layer has an `inv_scale`; the other one is not used.
    void (*multiply_panel)(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                           uint8_t* quantized);
};

}  // namespace dynamic_tinybert
