#pragma once

#include <string>

#include "kernels/kernels.hpp"

namespace dynamic_tinybert {

/// The fastest kernels that give the right results on this CPU, or those that the environment variable
/// DYNAMIC_TINYBERT_ISA names. Throws ov::Exception if the name is unknown, or these kernels do not run on this CPU or
/// give wrong results.
const Kernels& choose_kernels();

/// The kernels of an instruction set by its name. Throws ov::Exception as above.
const Kernels& kernels_of(const std::string& isa);

/// Names of the instruction sets that this CPU can run, fastest first, separated by commas.
std::string runnable_isas();

/// Names of the instruction sets that are not used because their kernels give other results than the scalar ones.
std::string distrusted_isas();

}  // namespace dynamic_tinybert
