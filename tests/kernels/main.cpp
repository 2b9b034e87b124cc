// Compares the kernels of every instruction set that this CPU has with the scalar ones. Knows neither OpenVINO nor
// Python, so that it also runs, linked statically, on an emulated CPU.
//
//     kernel_test [--list | PATH ...]
//
// Without names every path is tested that this CPU has. Exit status: 0 if all of them are right, 1 if one is wrong, 2 if
// a path was named that is unknown or that this CPU does not have.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "checks.hpp"

namespace dynamic_tinybert {
namespace {

void break_off(int signal) {
    const char* what = signal == SIGILL ? "an instruction that this CPU does not have" : "memory beyond an array";
    char text[300];
    const int size = std::snprintf(text, sizeof text, "BROKEN OFF at %s: %s\n", current_check(), what);
    if (size > 0 && write(STDOUT_FILENO, text, static_cast<size_t>(size)) < 0)
        _exit(3);
    _exit(1);
}

/// Whether all of a path's kernels are right.
bool test(const Kernels& kernels) {
    const auto begun = std::chrono::steady_clock::now();
    const bool scalar = std::strcmp(kernels.isa, "scalar") == 0;
    Checks checks(kernels.isa);
    check_linear(kernels.linear, scalar, checks);
    check_attention(kernels.attention, false, checks);
    if (kernels.int16_attention)
        check_attention(*kernels.int16_attention, true, checks);
    check_scorer(kernels.scorer, false, checks);
    if (kernels.int12_scorer)
        check_scorer(*kernels.int12_scorer, true, checks);
    check_rows(kernels, checks);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%s: %zu comparisons, %zu mismatches, %.1f s\n", kernels.isa, checks.comparisons(), checks.mismatches(),
                took.count());
    std::fflush(stdout);
    return checks.mismatches() == 0;
}

int run(const std::vector<std::string>& names) {
    const std::vector<Kernels>& all = all_kernels();
    for (const std::string& name : names) {
        const auto named = std::find_if(all.begin(), all.end(), [&](const Kernels& k) { return name == k.isa; });
        if (named == all.end() || !named->runs_here()) {
            std::printf("%s: %s\n", name.c_str(), named == all.end() ? "no such path" : "this CPU does not have it");
            return 2;
        }
    }
    bool right = true;
    for (const Kernels& kernels : all) {
        if (!names.empty() && std::find(names.begin(), names.end(), kernels.isa) == names.end())
            continue;
        if (kernels.runs_here())
            right = test(kernels) && right;
        else
            std::printf("%s: skipped, this CPU does not have it\n", kernels.isa);
    }
    return right ? 0 : 1;
}

int list() {
    for (const Kernels& kernels : all_kernels())
        std::printf("%s%s\n", kernels.isa, kernels.runs_here() ? "" : " (not on this CPU)");
    return 0;
}

}  // namespace
}  // namespace dynamic_tinybert

int main(int count, char** arguments) {
#ifndef __SANITIZE_ADDRESS__  // which says more itself
    signal(SIGSEGV, dynamic_tinybert::break_off);
    signal(SIGBUS, dynamic_tinybert::break_off);
#endif
    signal(SIGILL, dynamic_tinybert::break_off);
    const std::vector<std::string> names(arguments + 1, arguments + count);
    return names == std::vector<std::string>{"--list"} ? dynamic_tinybert::list() : dynamic_tinybert::run(names);
}
