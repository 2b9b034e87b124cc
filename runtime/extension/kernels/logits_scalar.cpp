// Reference kernel, written for readability: the faster one is compared with it, and CPUs without AVX2 use it.

#include "kernels/scalar.hpp"

namespace dynamic_tinybert {

void compute_logits_scalar(const float* state, const float* head, size_t rows, size_t width, float* to) {
    for (size_t row = 0; row < rows; ++row, state += width)
        for (size_t logit = 0; logit < 2; ++logit) {
            const float* weights = head + logit * (width + 1);
            float sum = 0.0f;
            for (size_t k = 0; k < width; ++k)
                sum += state[k] * weights[k];
            to[2 * row + logit] = sum + weights[width];
        }
}

}  // namespace dynamic_tinybert
