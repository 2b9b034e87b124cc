#pragma once

#include <string>

#include "kernels/kernels.hpp"

namespace dynamic_tinybert {

/// The fastest kernels that this CPU runs and that compute right on it, or those that the environment variable
/// DYNAMIC_TINYBERT_ISA names. Throws ov::Exception for a name that is unknown or that this CPU cannot run.
const Kernels& choose_kernels();

/// The kernels of a name. Throws ov::Exception as above.
const Kernels& kernels_of(const std::string& isa);

/// Names that this CPU can run, fastest first, separated by commas.
std::string runnable_isas();

/// Names among them that were tried and passed over, as they compute something else than the scalar ones.
std::string distrusted_isas();

}  // namespace dynamic_tinybert
