// AVX-VNNI: the dot products of AVX-512 VNNI on 256 bits, in the encoding of AVX2.

#include "kernels/vector_kernels.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#include "kernels/vectors_256.inl"

namespace dynamic_tinybert {
namespace {

// As assembly, which needs no compiler that knows the instructions as those of AVX2.

/// Adds to each sum four products of an unsigned number of 8 bits and a signed one.
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(unsigned_ones), "x"(signed_ones));
}

/// Adds to each sum two products of signed numbers of 16 bits.
inline void add_products_of_16_bits(Ints& sums, Ints a, Ints b) {
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums) : "x"(a), "x"(b));
}

constexpr bool splits_weights = false;
constexpr size_t rows_of_8_bits = 6, vectors_of_8_bits = 2;  // of sums that stay in registers

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
