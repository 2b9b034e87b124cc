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
#include <functional>

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

/// What can be tested, and on which CPUs.
struct Path {
    std::string name;
    bool runs_here;
    std::function<void(Checks&)> check;
};

void check_all(const Kernels& kernels, Checks& checks) {
    // All vectors round alike; AVX2 is there wherever another one is.
    const bool first = &kernels == &kernels_avx2 || &kernels == &kernels_scalar;
    const Kernels* alike = first ? nullptr : &kernels_avx2;
    check_linear(*kernels.linear_int8, alike ? alike->linear_int8 : nullptr, checks);
    check_attention(*kernels.attention_f32, alike ? alike->attention_f32 : nullptr, false, checks);
    check_attention(*kernels.attention_int16, alike ? alike->attention_int16 : nullptr, true, checks);
    check_scorer(*kernels.scorer_f32, alike ? alike->scorer_f32 : nullptr, false, checks);
    check_scorer(*kernels.scorer_int12, alike ? alike->scorer_int12 : nullptr, true, checks);
    check_rows(kernels, checks);
    Guarded<uint8_t> proven(1), expected(1, 1);
    proven[0] = computes_right(kernels);
    checks.begin("what the path has to prove before it is used");
    checks.equal(proven, expected);
}

std::vector<Path> all_paths() {
    std::vector<Path> paths;
    for (const Kernels* kernels : all_kernels())
        paths.push_back({kernels->isa, kernels->runs_here(), [=](Checks& checks) { check_all(*kernels, checks); }});
    paths.push_back({"plain_tiles_256", kernels_avx2.runs_here(),
                     [](Checks& checks) { check_plain_tiles(linear_int8_plain_tiles_256, checks); }});
    paths.push_back({"plain_tiles_512", kernels_avx512.runs_here(),
                     [](Checks& checks) { check_plain_tiles(linear_int8_plain_tiles_512, checks); }});
    return paths;
}

/// Whether all of a path's kernels are right.
bool test(const Path& path) {
    const auto begun = std::chrono::steady_clock::now();
    Checks checks(path.name);
    path.check(checks);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    std::printf("%s: %zu comparisons, %zu mismatches, %.1f s\n", path.name.c_str(), checks.comparisons(),
                checks.mismatches(), took.count());
    std::fflush(stdout);
    return checks.mismatches() == 0;
}

int run(const std::vector<std::string>& names) {
    const std::vector<Path> paths = all_paths();
    for (const std::string& name : names) {
        const auto named = std::find_if(paths.begin(), paths.end(), [&](const Path& path) { return path.name == name; });
        if (named == paths.end() || !named->runs_here) {
            std::printf("%s: %s\n", name.c_str(), named == paths.end() ? "no such path" : "this CPU does not have it");
            return 2;
        }
    }
    bool right = true;
    for (const Path& path : paths) {
        if (!names.empty() && std::find(names.begin(), names.end(), path.name) == names.end())
            continue;
        if (path.runs_here)
            right = test(path) && right;
        else
            std::printf("%s: skipped, this CPU does not have it\n", path.name.c_str());
    }
    return right ? 0 : 1;
}

int list() {
    for (const Path& path : all_paths())
        std::printf("%s%s\n", path.name.c_str(), path.runs_here ? "" : " (not on this CPU)");
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
