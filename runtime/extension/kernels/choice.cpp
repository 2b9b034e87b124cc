// Chooses among the instruction sets. Adding one takes a line here, one in kernels.hpp and one in CMakeLists.txt.

#include "kernels/kernels.hpp"

namespace dynamic_tinybert {

const std::vector<const Kernels*>& all_kernels() {
    static const std::vector<const Kernels*> fastest_first{
        &kernels_amx, &kernels_avx512_vnni, &kernels_avx_vnni, &kernels_avx512, &kernels_avx2, &kernels_scalar};
    return fastest_first;
}

const std::vector<const Kernels*>& runnable_kernels() {
    static const std::vector<const Kernels*> runnable = [] {
        std::vector<const Kernels*> found;
        for (const Kernels* kernels : all_kernels())
            if (kernels->runs_here())
                found.push_back(kernels);
        return found;
    }();
    return runnable;
}

const Kernels* runnable_kernels(const std::string& isa) {
    for (const Kernels* kernels : runnable_kernels())
        if (isa == kernels->isa)
            return kernels;
    return nullptr;
}

}  // namespace dynamic_tinybert
