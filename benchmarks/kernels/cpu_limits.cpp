// The highest multiply-accumulate rate of N threads with each instruction set that this CPU has: independent
// accumulators in registers, no memory. Prints JSON, {"int8": {"avx2": GOPS, ...}, "fp32": {"avx2": GFLOPS, ...}};
// a multiply-accumulate counts as two operations.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int accumulators = 12;  // hides the latency of two units, and leaves registers for the factors
constexpr long rounds = 500'000;  // about a millisecond, so that some of many runs are not disturbed

// A function that executes INSTRUCTIONS (%0: the accumulator; %1, %2: the factors) on each accumulator.
#define KERNEL(NAME, TARGET, VECTOR, INSTRUCTIONS)                                               \
    __attribute__((target(TARGET))) void NAME() {                                                \
        VECTOR sums[accumulators] = {}, a = {}, b = {};                                          \
        for (long i = 0; i < rounds; ++i) {                                                      \
            _Pragma("GCC unroll 12") for (auto& sum : sums)                                      \
                __asm__ volatile(INSTRUCTIONS : "+v"(sum) : "v"(a), "v"(b) : "xmm15");           \
        }                                                                                        \
    }

KERNEL(int8_avx2, "avx2", __m256i,
       "vpmaddubsw %2, %1, %%ymm15\n vpmaddwd %2, %%ymm15, %%ymm15\n vpaddd %%ymm15, %0, %0")
KERNEL(int8_avx512, "avx512bw", __m512i,
       "vpmaddubsw %2, %1, %%zmm15\n vpmaddwd %2, %%zmm15, %%zmm15\n vpaddd %%zmm15, %0, %0")
KERNEL(int8_avx_vnni, "avx2", __m256i, "%{vex%} vpdpbusd %2, %1, %0")
KERNEL(int8_avx512_vnni, "avx512f", __m512i, "vpdpbusd %2, %1, %0")
KERNEL(fp32_avx2, "avx2", __m256, "vfmadd231ps %2, %1, %0")
KERNEL(fp32_avx512, "avx512f", __m512, "vfmadd231ps %2, %1, %0")

struct Kernel {
    const char* name;
    bool runs_here;
    void (*function)();
    int products;  // multiply-accumulates per accumulator and round
};

double best_rate(const Kernel& kernel, int threads) {
    double best = 0;
    for (int attempt = 0; attempt < 100; ++attempt) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> others;
        for (int i = 1; i < threads; ++i) others.emplace_back(kernel.function);
        kernel.function();
        for (auto& other : others) other.join();
        const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2.0 * kernel.products * accumulators * rounds * threads / time.count());
    }
    return best;
}

void print(const char* kind, const std::vector<Kernel>& kernels, int threads) {
    std::printf("\"%s\": {", kind);
    const char* separator = "";
    for (const auto& kernel : kernels) {
        if (!kernel.runs_here) continue;
        std::printf("%s\"%s\": %.1f", separator, kernel.name, best_rate(kernel, threads));
        separator = ", ";
    }
    std::printf("}");
}

}  // namespace

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f");
    std::printf("{");
    print("int8",
          {{"avx2", avx2, int8_avx2, 32},
           {"avx512", avx512 && __builtin_cpu_supports("avx512bw"), int8_avx512, 64},
           {"avx_vnni", __builtin_cpu_supports("avxvnni") != 0, int8_avx_vnni, 32},
           {"avx512_vnni", avx512 && __builtin_cpu_supports("avx512vnni"), int8_avx512_vnni, 64}},
          threads);
    std::printf(", ");
    print("fp32", {{"avx2", avx2, fp32_avx2, 8}, {"avx512", avx512, fp32_avx512, 16}}, threads);
    std::printf("}\n");
}
