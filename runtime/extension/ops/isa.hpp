#pragma once

#include <string>

#include "kernels/kernels.hpp"

namespace dynamic_tinybert {

/// The fastest kernels that run on this CPU and give the right results there, or those that the environment variable
/// DYNAMIC_TINYBERT_ISA names. Throws ov::Exception if the name is unknown, or the CPU cannot run these kernels
/// correctly.
const Kernels& choose_kernels();

/// The kernels of an instruction set by its name. Throws ov::Exception as above.
const Kernels& kernels_of(const std::string& isa);

/// Names of the instruction sets that this CPU can run, fastest first, separated by commas.
std::string runnable_isas();

/// Names of those that were passed over because their kernels give other results than the scalar ones.
std::string distrusted_isas();

}  // namespace dynamic_tinybert
