// Rates of 8-bit products on every path that this CPU runs, and in two ways that are not paths of ours (widened.hpp):
// one thread, 10^9 multiply-accumulates per second, the best of many short runs that take turns. Prints JSON,
// {"rows, depth, columns": {"avx2": rate, ...}}.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/kernels.hpp"
#include "widened.hpp"

using namespace dynamic_tinybert;

namespace {

/// Random weights; 0.8 % of their pairs would saturate 16 bits, as in the embedded bundle.
Aligned<int8_t> random_weights(size_t width, size_t depth, std::mt19937& generator) {
    std::normal_distribution<float> normal(0.0f, 34.3f);
    Aligned<int8_t> weights(width * depth);
    for (int8_t& weight : weights)
        weight = static_cast<int8_t>(std::lround(std::clamp(normal(generator), -127.0f, 127.0f)));
    return weights;
}

struct Way {
    std::string name;
    std::function<void()> multiply;
    double best = 1e9;  // seconds
};

void measure(size_t rows, size_t depth, size_t width, int rounds, const char* separator) {
    std::mt19937 generator(0);
    const auto weights = random_weights(width, depth, generator);
    Aligned<uint8_t> levels(rows * depth);
    for (uint8_t& level : levels)
        level = static_cast<uint8_t>(generator());
    const Aligned<float> scale(width, 1e-4f), bias(width, 0.0f);
    Aligned<float> result(rows * width);
    Aligned<int16_t> wide_levels(rows * depth);
    std::vector<Way> ways;
    for (const Kernels* kernels : runnable_kernels()) {
        if (kernels == &kernels_scalar)
            continue;
        const LinearKernels& own = *kernels->linear_int8;
        const auto packed = std::make_shared<Aligned<int8_t>>(own.packed_size(weights.data(), width, depth));
        own.pack(weights.data(), width, depth, packed->data());
        const Linear linear{packed->data(), scale.data(), bias.data(), nullptr, 0.0f, depth, width};
        ways.push_back({kernels->isa, [&, packed, linear] {
                            for (size_t panel = 0; panel < panels_of(width); ++panel)
                                own.multiply_panel(linear, levels.data(), rows, panel, result.data(), nullptr);
                        }});
    }
    const auto narrow = widened::pack<int8_t>(weights.data(), width, depth);
    const auto wide = widened::pack<int16_t>(weights.data(), width, depth);
    if (runnable_kernels("avx2")) {
        ways.push_back({"widened in the loop", [&] {
                            widened::multiply(levels.data(), rows, depth, narrow.data(), width, result.data(),
                                              wide_levels.data());
                        }});
        ways.push_back({"widened when packed", [&] {
                            widened::multiply(levels.data(), rows, depth, wide.data(), width, result.data(),
                                              wide_levels.data());
                        }});
    }
    for (int round = 0; round < rounds; ++round)
        for (Way& way : ways)
            for (int again = 0; again < 3; ++again) {  // the first one warms up
                const auto start = std::chrono::steady_clock::now();
                way.multiply();
                const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
                way.best = std::min(way.best, time.count());
            }
    std::printf("%s\"%zu, %zu, %zu\": {", separator, rows, depth, width);
    for (const Way& way : ways)
        std::printf("%s\"%s\": %.1f", &way == ways.data() ? "" : ", ", way.name.c_str(),
                    static_cast<double>(rows * depth * width) / way.best * 1e-9);
    std::printf("}");
}

}  // namespace

int main(int count, char** arguments) {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 200;
    std::printf("{");
    measure(168, 384, 1536, rounds, "");
    measure(168, 1536, 384, rounds, ", ");
    measure(48, 384, 1536, rounds, ", ");
    std::printf("}\n");
}
