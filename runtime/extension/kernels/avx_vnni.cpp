// AVX-VNNI: the dot products of AVX-512 VNNI on 256 bits, VEX-encoded.

#include "kernels/vector_kernels.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#include "kernels/vectors_256.inl"

namespace dynamic_tinybert {
namespace {

// Written in assembly, for compilers that do not know the VEX-encoded instructions.

/// Adds to each 32-bit sum four products of an unsigned and a signed 8-bit number.
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(unsigned_ones), "x"(signed_ones));
}

/// Adds to each 32-bit sum two products of signed 16-bit numbers.
inline void add_products_of_16_bits(Ints& sums, Ints a, Ints b) {
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums) : "x"(a), "x"(b));
}

constexpr bool splits_weights = false;
constexpr size_t strip_rows = 6, strip_vectors = 2;  // whose sums stay in registers

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/vector_kernels.inl"

#pragma GCC pop_options

namespace dynamic_tinybert {
namespace {

bool runs_here() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avxvnni");
}

}  // namespace

const Kernels kernels_avx_vnni = vector_kernels("avx_vnni", runs_here);

}  // namespace dynamic_tinybert
