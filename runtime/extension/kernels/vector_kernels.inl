// All kernels that are written once, on the vectors and dot products that the including file defines.

#include "kernels/products_int16.inl"
#include "kernels/products_f32.inl"

#include "kernels/attention_int16.inl"
#include "kernels/linear_int8.inl"
#include "kernels/scorer_f32.inl"
#include "kernels/scorer_int12.inl"

namespace dynamic_tinybert {
namespace {

/// The kernels under the name of an instruction set, which may have 8-bit linear layers of its own.
consteval Kernels vector_kernels(const char* isa, bool (*runs_here)(), const LinearKernels* linears = &linear_int8) {
    return {.isa = isa,
            .runs_here = runs_here,
            .worth_fusing = true,
            .attention_f32 = &attention_f32_avx2,
            .attention_int16 = &attention_int16,
            .scorer_f32 = &scorer_f32,
            .scorer_int12 = &scorer_int12,
            .linear_int8 = linears,
            .add_and_normalize = add_and_normalize_avx2,
            .float_linear = float_linear_avx2,
            .add_word = add_word_avx2};
}

}  // namespace
}  // namespace dynamic_tinybert
