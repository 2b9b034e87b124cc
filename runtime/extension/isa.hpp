#pragma once

#include <string>

#include "kernels.hpp"

namespace dynamic_tinybert {

/// The fastest attention that this CPU runs, or the one that the environment variable DYNAMIC_TINYBERT_ISA
/// names. Throws ov::Exception for a name that is unknown or that this CPU cannot run.
const AttentionKernels& choose_attention_kernels();

/// Names that this CPU can run, fastest first, separated by commas.
std::string runnable_isas();

}  // namespace dynamic_tinybert
