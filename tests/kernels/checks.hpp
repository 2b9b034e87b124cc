#pragma once
// What the checks of the kernels share: random numbers, and comparisons that report where two results part.

#include <cstdarg>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "guarded.hpp"
#include "kernels/kernels.hpp"

namespace dynamic_tinybert {

/// Numbers that are the same in every run.
class Random {
public:
    explicit Random(uint32_t seed) : m_bits(seed) {}

    int whole(int from, int to) { return from + static_cast<int>(m_bits() % static_cast<uint32_t>(to - from + 1)); }
    float uniform(float from, float to) { return from + (to - from) * static_cast<float>(m_bits() >> 8) / (1 << 24); }
    float normal() {  // near enough: the sum of twelve
        float sum = -6.0f;
        for (int k = 0; k < 12; ++k)
            sum += uniform(0.0f, 1.0f);
        return sum;
    }

    Guarded<float> normals(size_t count, float scale = 1.0f);
    Guarded<float> uniforms(size_t count, float from, float to);

private:
    std::mt19937 m_bits;
};

/// Counts what was compared, and prints the first number of each comparison that is wrong.
class Checks {
public:
    explicit Checks(std::string path) : m_path(std::move(path)) {}

    /// Says what is compared next, for messages.
    void begin(const char* format, ...) __attribute__((format(printf, 2, 3)));

    /// Equal to the bit; one NaN is as good as another.
    void equal(const Guarded<float>& got, const Guarded<float>& expected);
    void equal(const Guarded<uint8_t>& got, const Guarded<uint8_t>& expected);
    /// Equal to the bit to what another path made, which may be the one that is wrong.
    template <typename T>
    void alike(const Guarded<T>& got, const Guarded<T>& other) {
        m_other = " by AVX2";
        equal(got, other);
        m_other = "";
    }
    /// Apart by at most `absolute + relative * |expected|`; NaN where NaN is expected.
    void close(const Guarded<float>& got, const Guarded<float>& expected, float absolute, float relative = 0.0f);
    /// Apart by at most one level, and that in at most `share` of the numbers: those near a half.
    void rounded_alike(const Guarded<uint8_t>& got, const Guarded<uint8_t>& expected, double share);

    const std::string& path() const { return m_path; }
    size_t comparisons() const { return m_comparisons; }
    size_t mismatches() const { return m_mismatches; }

private:
    template <typename T, typename Wrong>
    void compare(const Guarded<T>& got, const Guarded<T>& expected, const Wrong& wrong);

    std::string m_path;
    const char* m_other = "";
    size_t m_comparisons = 0, m_mismatches = 0;
};

/// What is being compared, for whoever has to say where the program broke off.
const char* current_check();

// Each compares kernels with the scalar ones, and the scalar ones with their definition. Floats of the others may differ
// from the scalar ones in their last bits, but not from those of kernels that are given as `alike`.
void check_linear(const LinearKernels& kernels, const LinearKernels* alike, Checks& checks);
void check_attention(const AttentionKernels& kernels, const AttentionKernels* alike, bool in_integers, Checks& checks);
void check_scorer(const ScorerKernels& kernels, const ScorerKernels* alike, bool in_integers, Checks& checks);
void check_rows(const Kernels& kernels, Checks& checks);

/// Products by tiles in plain code: the kernel of AMX without its instructions.
extern const LinearKernels linear_int8_plain_tiles_256, linear_int8_plain_tiles_512;
void check_plain_tiles(const LinearKernels& kernels, Checks& checks);

}  // namespace dynamic_tinybert
