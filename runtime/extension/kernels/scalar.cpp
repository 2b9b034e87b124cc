// The kernels that run on any CPU.

#include "kernels/scalar.hpp"

#include "kernels/kernels.hpp"

namespace dynamic_tinybert {
namespace {

bool runs_here() {
    return true;
}

}  // namespace

const Kernels kernels_scalar{.isa = "scalar",
                             .runs_here = runs_here,
                             .worth_fusing = false,
                             .attention_f32 = &attention_f32_scalar,
                             .attention_int16 = &attention_int16_scalar,
                             .scorer_f32 = &scorer_f32_scalar,
                             .scorer_int12 = &scorer_int12_scalar,
                             .linear_int8 = &linear_int8_scalar,
                             .add_and_normalize = add_and_normalize_scalar,
                             .float_linear = float_linear_scalar,
                             .add_word = add_word_scalar};

}  // namespace dynamic_tinybert
