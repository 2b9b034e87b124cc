#pragma once
// Reference kernels, written for readability: the faster ones are compared with them, and CPUs that run no other use
// them.

#include "kernels/attention_kernels.hpp"
#include "kernels/embedding_kernels.hpp"
#include "kernels/float_linear_kernels.hpp"
#include "kernels/layer_norm_kernels.hpp"
#include "kernels/linear_kernels.hpp"
#include "kernels/scorer_kernels.hpp"

namespace dynamic_tinybert {

extern const AttentionKernels attention_f32_scalar, attention_int16_scalar;
extern const ScorerKernels scorer_f32_scalar, scorer_int12_scalar;
extern const LinearKernels linear_int8_scalar;

void add_and_normalize_scalar(const Normalization&, const float*, const float*, size_t, float*);
void float_linear_scalar(const float*, const float*, size_t, size_t, size_t, float*, size_t);
void add_word_scalar(const int8_t*, float, const float*, size_t, float*);

}  // namespace dynamic_tinybert
