// Reference kernel, written for readability: the faster one is compared with it, and CPUs without AVX2 use it.

#include "kernels/scalar.hpp"

namespace dynamic_tinybert {

void float_linear_scalar(const float* state, const float* layer, size_t rows, size_t width, size_t columns, float* to,
                         size_t stride) {
    for (size_t row = 0; row < rows; ++row, state += width)
        for (size_t column = 0; column < columns; ++column) {
            const float* weights = layer + column * (width + 1);
            float sum = 0.0f;
            for (size_t k = 0; k < width; ++k)
                sum += state[k] * weights[k];
            to[row * stride + column] = sum + weights[width];
        }
}

}  // namespace dynamic_tinybert
