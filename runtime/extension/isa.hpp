#pragma once

#include <string>

#include "attention_kernels.hpp"
#include "embedding_kernels.hpp"
#include "layer_norm_kernels.hpp"
#include "linear_kernels.hpp"
#include "logits_kernels.hpp"
#include "scorer_kernels.hpp"

namespace dynamic_tinybert {

/// What the ops compute with, for one instruction set.
struct Kernels {
    const char* isa;
    bool (*runs_here)();
    const AttentionKernels& attention;
    const AttentionKernels* int16_attention;  ///< Null where integers would not be faster.
    const ScorerKernels& scorer;
    const ScorerKernels* int12_scorer;        ///< Null where integers would not be faster.
    AddAndNormalize add_and_normalize;
    const LinearKernels& linear;
    ComputeLogits compute_logits;
    AddWord add_word;
};

/// The fastest kernels that this CPU runs, or those that the environment variable DYNAMIC_TINYBERT_ISA
/// names. Throws ov::Exception for a name that is unknown or that this CPU cannot run.
const Kernels& choose_kernels();

/// Names that this CPU can run, fastest first, separated by commas.
std::string runnable_isas();

}  // namespace dynamic_tinybert
