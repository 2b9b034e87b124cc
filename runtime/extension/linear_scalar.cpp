// The readable path: what the faster one is compared with, and what runs on a CPU that has none.

#include <algorithm>
#include <cmath>

#include "linear_kernels.hpp"
#include "quantize.hpp"

namespace dynamic_tinybert {
namespace {

void quantize_rows(const float* from, const float* per_unit, float zero_point, size_t rows, size_t depth,
                   uint8_t* to) {
    for (size_t row = 0; row < rows; ++row)
        for (size_t k = 0; k < depth; ++k, ++from, ++to)
            *to = quantize(*from * per_unit[k] + zero_point);
}

float gelu(float x) {
    return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
}

void multiply_panel(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                    uint8_t* quantized) {
    const int8_t* weights = linear.weights + panel * linear.depth * panel_columns;
    const size_t first = panel * panel_columns, columns = std::min(panel_columns, linear.width - first);
    for (size_t row = 0; row < rows; ++row, from += linear.depth)
        for (size_t j = 0; j < columns; ++j) {
            int32_t sum = 0;
            for (size_t k = 0; k < linear.depth; ++k)
                sum += from[k] * weights[(k / depth_step * panel_columns + j) * depth_step + k % depth_step];
            const size_t column = first + j, at = row * linear.width + column;
            const float y = static_cast<float>(sum) * linear.scale[column] + linear.bias[column];
            if (linear.per_unit)
                quantized[at] = quantize(gelu(y) * linear.per_unit[column] + linear.zero_point);
            else
                result[at] = y;
        }
}

}  // namespace

const LinearKernels linear_scalar{quantize_rows, multiply_panel};

}  // namespace dynamic_tinybert
