// AVX2 with FMA, on CPUs without VNNI.

#include "kernels/vector_kernels.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#include "kernels/vectors_256.inl"

namespace dynamic_tinybert {
namespace {

/// Adds to each 32-bit sum four products of an unsigned and a signed 8-bit number. Pairs of products are added in 16
/// bits, which saturates unless the weights were split (packing.hpp).
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    const Ints pairs = _mm256_maddubs_epi16(unsigned_ones, signed_ones);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/// Adds to each 32-bit sum two products of signed 16-bit numbers. Written in assembly, because GCC 12 otherwise
/// computes all products of a strip first and spills registers.
inline void add_products_of_16_bits(Ints& sums, Ints a, Ints b) {
    Ints products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sums), "=&x"(products) : "x"(a), "x"(b));
}

constexpr bool splits_weights = true;
constexpr size_t strip_rows = 4, strip_vectors = 2;  // whose sums stay in registers

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/vector_kernels.inl"

#pragma GCC pop_options

namespace dynamic_tinybert {
namespace {

bool runs_here() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

}  // namespace

const Kernels kernels_avx2 = vector_kernels("avx2", runs_here);

}  // namespace dynamic_tinybert
