#pragma once
// The kernels of each instruction set, and which of them this CPU can run. They depend on neither OpenVINO nor threads.

#include <string>
#include <vector>

#include "kernels/attention_kernels.hpp"
#include "kernels/embedding_kernels.hpp"
#include "kernels/float_linear_kernels.hpp"
#include "kernels/layer_norm_kernels.hpp"
#include "kernels/linear_kernels.hpp"
#include "kernels/scorer_kernels.hpp"

namespace dynamic_tinybert {

/// The kernels of one instruction set. All sets compute the same integers, and all but `scalar` the same floats; those
/// of `scalar` differ in the last bits.
struct Kernels {
    const char* isa;
    bool (*runs_here)();  ///< Whether this CPU has the instructions.
    bool worth_fusing;  ///< Whether a graph of these ops is faster than OpenVINO's own nodes.
    const AttentionKernels* attention_f32;
    const AttentionKernels* attention_int16;
    const ScorerKernels* scorer_f32;
    const ScorerKernels* scorer_int12;
    const LinearKernels* linear_int8;
    AddAndNormalize add_and_normalize;
    FloatLinearKernel float_linear;
    AddWord add_word;
};

extern const Kernels kernels_amx, kernels_avx512_vnni, kernels_avx_vnni, kernels_avx512, kernels_avx2, kernels_scalar;

/// The kernels of all instruction sets, fastest first. The last one, scalar, runs everywhere.
const std::vector<const Kernels*>& all_kernels();

/// The kernels that this CPU can run, fastest first.
const std::vector<const Kernels*>& runnable_kernels();

/// The kernels of the instruction set with this name; null if this CPU has no such instruction set.
const Kernels* runnable_kernels(const std::string& isa);

/// Whether each kernel gives the scalar kernel's result for a small input. Computed once per process.
bool computes_right(const Kernels& kernels);

}  // namespace dynamic_tinybert
