// Rates of the 8-bit products of every path that this CPU runs, one thread, in 10^9 multiply-accumulates a second: the
// best of many short runs, in which the paths take turns. Prints JSON, {"rows, depth, columns": {"avx2": rate, ...}}.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/kernels.hpp"

using namespace dynamic_tinybert;

namespace {

/// Weights of which 0.8 % of the pairs would saturate 16 bits, as in the embedded bundle.
Aligned<int8_t> random_weights(size_t width, size_t depth, std::mt19937& generator) {
    std::normal_distribution<float> normal(0.0f, 34.3f);
    Aligned<int8_t> weights(width * depth);
    for (int8_t& weight : weights)
        weight = static_cast<int8_t>(std::lround(std::clamp(normal(generator), -127.0f, 127.0f)));
    return weights;
}

struct Product {
    const Kernels* kernels;
    Aligned<int8_t> packed;
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
    std::vector<Product> products;
    for (const Kernels* kernels : runnable_kernels()) {
        if (std::string(kernels->isa) == "scalar")
            continue;
        const LinearKernels& linear = *kernels->linear_int8;
        products.push_back({kernels, Aligned<int8_t>(linear.packed_size(weights.data(), width, depth))});
        linear.pack(weights.data(), width, depth, products.back().packed.data());
    }
    for (int round = 0; round < rounds; ++round)
        for (Product& product : products)
            for (int again = 0; again < 3; ++again) {  // the first one warms up
                const Linear linear{product.packed.data(), scale.data(), bias.data(), nullptr, 0.0f, depth, width};
                const auto start = std::chrono::steady_clock::now();
                for (size_t panel = 0; panel < panels_of(width); ++panel)
                    product.kernels->linear_int8->multiply_panel(linear, levels.data(), rows, panel, result.data(), nullptr);
                const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
                product.best = std::min(product.best, time.count());
            }
    std::printf("%s\"%zu, %zu, %zu\": {", separator, rows, depth, width);
    for (const Product& product : products)
        std::printf("%s\"%s\": %.1f", &product == products.data() ? "" : ", ", product.kernels->isa,
                    static_cast<double>(rows * depth * width) / product.best * 1e-9);
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
