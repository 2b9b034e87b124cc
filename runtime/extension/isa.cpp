#include "isa.hpp"

#include <cstdlib>
#include <openvino/core/except.hpp>

namespace dynamic_tinybert {
namespace {

const AttentionKernels* const fastest_first[] = {&avx2_kernels, &scalar_kernels};

}  // namespace

const AttentionKernels& choose_attention_kernels() {
    const char* variable = std::getenv("DYNAMIC_TINYBERT_ISA");
    const std::string wanted = variable ? variable : "";
    for (const AttentionKernels* kernels : fastest_first)
        if (kernels->runs_here() && (wanted.empty() || wanted == kernels->isa))
            return *kernels;
    OPENVINO_THROW("DYNAMIC_TINYBERT_ISA is '", wanted,
                   "', which this CPU cannot run; unset it or set it to one of: ", runnable_isas());
}

std::string runnable_isas() {
    std::string names;
    for (const AttentionKernels* kernels : fastest_first)
        if (kernels->runs_here())
            names += (names.empty() ? "" : ",") + std::string(kernels->isa);
    return names;
}

}  // namespace dynamic_tinybert
