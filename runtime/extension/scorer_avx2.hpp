#pragma once

#include "scorer_kernels.hpp"

namespace dynamic_tinybert {

// `features` and `look_around` of ScorerKernels, which other instruction sets use, too.
void features_avx2(const FirstLayer&, const float*, size_t, size_t, float*);
void look_around_avx2(const Neighbourhood&, const float*, size_t, size_t, size_t, size_t, float*);

}  // namespace dynamic_tinybert
