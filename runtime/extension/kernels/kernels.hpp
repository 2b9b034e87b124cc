#pragma once
// All that the ops compute with, and which of it this CPU runs. Nothing here knows of OpenVINO or of threads.

#include <string>
#include <vector>

#include "kernels/attention_kernels.hpp"
#include "kernels/embedding_kernels.hpp"
#include "kernels/layer_norm_kernels.hpp"
#include "kernels/linear_kernels.hpp"
#include "kernels/logits_kernels.hpp"
#include "kernels/scorer_kernels.hpp"

namespace dynamic_tinybert {

/// One instruction set. All give the same integers; floats may differ in their last bits from `scalar` only.
struct Kernels {
    const char* isa;
    bool (*runs_here)();
    bool worth_fusing;  ///< Whether a graph of these ops is faster than OpenVINO's own nodes.
    const AttentionKernels* attention_f32;
    const AttentionKernels* attention_int16;
    const ScorerKernels* scorer_f32;
    const ScorerKernels* scorer_int12;
    const LinearKernels* linear_int8;
    AddAndNormalize add_and_normalize;
    ComputeLogits compute_logits;
    AddWord add_word;
};

extern const Kernels kernels_amx, kernels_avx512_vnni, kernels_avx_vnni, kernels_avx512, kernels_avx2, kernels_scalar;

/// All that there are, the fastest first; the last one, scalar, runs everywhere.
const std::vector<const Kernels*>& all_kernels();

/// Those that this CPU has the instructions for, in the same order.
const std::vector<const Kernels*>& runnable_kernels();

/// Those of a name, or null if there are none that this CPU has the instructions for.
const Kernels* runnable_kernels(const std::string& isa);

/// Whether a small product of each kernel is what the scalar ones make of it. Computed once for each in a process.
bool computes_right(const Kernels& kernels);

}  // namespace dynamic_tinybert
