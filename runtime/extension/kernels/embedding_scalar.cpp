// Reference kernel, written for readability: the faster one is compared with it, and CPUs without AVX2 use it.

#include "kernels/scalar.hpp"

namespace dynamic_tinybert {

void add_word_scalar(const int8_t* word, float scale, const float* added, size_t width, float* sum) {
    for (size_t k = 0; k < width; ++k)
        sum[k] = word[k] * scale + added[k];
}

}  // namespace dynamic_tinybert
