#include "ops/isa.hpp"

#include <cstdlib>
#include <openvino/core/except.hpp>

namespace dynamic_tinybert {
namespace {

void append(std::string& names, const char* name) {
    if (!names.empty())
        names += ',';
    names += name;
}

}  // namespace

const Kernels& choose_kernels() {
    const char* variable = std::getenv("DYNAMIC_TINYBERT_ISA");
    if (variable && *variable)
        return kernels_of(variable);
    for (const Kernels* kernels : runnable_kernels())
        if (computes_right(*kernels))
            return *kernels;
    return kernels_scalar;
}

const Kernels& kernels_of(const std::string& isa) {
    const Kernels* kernels = runnable_kernels(isa);
    OPENVINO_ASSERT(kernels, "DYNAMIC_TINYBERT_ISA is '", isa,
                    "', which this CPU cannot run; unset it or set it to one of: ", runnable_isas());
    OPENVINO_ASSERT(computes_right(*kernels), "the kernels for ", isa,
                    " give other results than the scalar ones on this CPU; do not name them in DYNAMIC_TINYBERT_ISA");
    return *kernels;
}

std::string runnable_isas() {
    std::string names;
    for (const Kernels* kernels : runnable_kernels())
        append(names, kernels->isa);
    return names;
}

std::string distrusted_isas() {
    std::string names;
    for (const Kernels* kernels : runnable_kernels()) {
        if (computes_right(*kernels))
            break;
        append(names, kernels->isa);
    }
    return names;
}

}  // namespace dynamic_tinybert
