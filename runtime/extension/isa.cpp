#include "isa.hpp"

#include <cstdlib>
#include <openvino/core/except.hpp>

namespace dynamic_tinybert {
namespace {

bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

bool always() {
    return true;
}

const Kernels fastest_first[] = {
    {"avx512_vnni", has_avx512_vnni, attention_avx2, &attention_avx512_vnni, scorer_avx2, &scorer_avx512_vnni,
     add_and_normalize_avx2, linear_avx512_vnni, compute_logits_avx2, add_word_avx2},
    {"avx2", has_avx2, attention_avx2, nullptr, scorer_avx2, nullptr, add_and_normalize_avx2, linear_scalar,
     compute_logits_avx2, add_word_avx2},
    {"scalar", always, attention_scalar, nullptr, scorer_scalar, nullptr, add_and_normalize_scalar, linear_scalar,
     compute_logits_scalar, add_word_scalar},
};

}  // namespace

const Kernels& choose_kernels() {
    const char* variable = std::getenv("DYNAMIC_TINYBERT_ISA");
    const std::string wanted = variable ? variable : "";
    for (const Kernels& kernels : fastest_first)
        if (kernels.runs_here() && (wanted.empty() || wanted == kernels.isa))
            return kernels;
    OPENVINO_THROW("DYNAMIC_TINYBERT_ISA is '", wanted,
                   "', which this CPU cannot run; unset it or set it to one of: ", runnable_isas());
}

std::string runnable_isas() {
    std::string names;
    for (const Kernels& kernels : fastest_first)
        if (kernels.runs_here())
            names += (names.empty() ? "" : ",") + std::string(kernels.isa);
    return names;
}

}  // namespace dynamic_tinybert
