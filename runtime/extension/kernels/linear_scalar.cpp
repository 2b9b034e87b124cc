// Reference kernels, written for readability: the faster ones are compared with them, and CPUs that run no other use
// them.

#include <algorithm>
#include <cmath>

#include "kernels/packing.hpp"
#include "kernels/quantize.hpp"
#include "kernels/scalar.hpp"

namespace dynamic_tinybert {
namespace {

size_t packed_size(const int8_t*, size_t width, size_t depth) {
    return panels_size(width, depth);
}

void pack(const int8_t* weights, size_t width, size_t depth, int8_t* packed) {
    pack_panels(weights, width, depth, panel_columns, packed);
}

void quantize_rows(const float* from, const float* inv_scale, float zero_point, size_t rows, size_t depth,
                   uint8_t* to) {
    for (size_t row = 0; row < rows; ++row)
        for (size_t k = 0; k < depth; ++k, ++from, ++to)
            *to = quantize(*from * inv_scale[k] + zero_point);
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
            if (linear.inv_scale)
                quantized[at] = quantize(gelu(y) * linear.inv_scale[column] + linear.zero_point);
            else
                result[at] = y;
        }
}

}  // namespace

const LinearKernels linear_int8_scalar{
    .packed_size = packed_size, .pack = pack, .quantize_rows = quantize_rows, .multiply_panel = multiply_panel};

}  // namespace dynamic_tinybert
