// Reference kernel, written for readability: the faster one is compared with it, and CPUs without AVX2 use it.

#include <cmath>

#include "kernels/scalar.hpp"

namespace dynamic_tinybert {

void add_and_normalize_scalar(const Normalization& to, const float* a, const float* b, size_t rows,
                              float* state) {
    const size_t width = to.width;
    for (size_t row = 0; row < rows; ++row, a += width, b += width, state += width) {
        float sum = 0.0f, squares = 0.0f;
        for (size_t k = 0; k < width; ++k) {
            state[k] = a[k] + b[k];
            sum += state[k];
        }
        const float mean = sum / static_cast<float>(width);
        for (size_t k = 0; k < width; ++k)
            squares += (state[k] - mean) * (state[k] - mean);
        const float inv_deviation = 1.0f / std::sqrt(squares / static_cast<float>(width) + to.epsilon);
        for (size_t k = 0; k < width; ++k)
            state[k] = (state[k] - mean) * inv_deviation * to.gamma[k] + to.beta[k];
    }
}

}  // namespace dynamic_tinybert
