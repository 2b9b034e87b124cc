// AVX-512 on CPUs without VNNI.

#include "kernels/vector_kernels.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")

#include "kernels/vectors_512.inl"

namespace dynamic_tinybert {
namespace {

/// Adds to each 32-bit sum four products of an unsigned and a signed 8-bit number. Pairs of products are added in 16
/// bits, which saturates unless the weights were split (packing.hpp).
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    const Ints pairs = _mm512_maddubs_epi16(unsigned_ones, signed_ones);
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/// Adds to each 32-bit sum two products of signed 16-bit numbers.
inline void add_products_of_16_bits(Ints& sums, Ints a, Ints b) {
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
}

constexpr bool splits_weights = true;
constexpr size_t strip_rows = 4, strip_vectors = 4;  // whose sums stay in registers

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/vector_kernels.inl"

#pragma GCC pop_options

namespace dynamic_tinybert {
namespace {

bool runs_here() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

const Kernels kernels_avx512 = vector_kernels("avx512", runs_here);

}  // namespace dynamic_tinybert
