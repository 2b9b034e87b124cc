#pragma once
// Kernels in f32 by AVX2 and FMA, which the faster instruction sets use as well.

#include "kernels/attention_kernels.hpp"
#include "kernels/embedding_kernels.hpp"
#include "kernels/float_linear_kernels.hpp"
#include "kernels/layer_norm_kernels.hpp"

namespace dynamic_tinybert {

extern const AttentionKernels attention_f32_avx2;

void add_and_normalize_avx2(const Normalization&, const float*, const float*, size_t, float*);
void float_linear_avx2(const float*, const float*, size_t, size_t, size_t, float*, size_t);
void add_word_avx2(const int8_t*, float, const float*, size_t, float*);

}  // namespace dynamic_tinybert
