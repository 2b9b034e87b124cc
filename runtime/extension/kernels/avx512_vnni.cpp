// AVX-512 with VNNI; and AMX, whose tiles compute the 8-bit linear layers.

#include "kernels/vector_kernels.hpp"
#include "kernels/tiles.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

#include "kernels/vectors_512.inl"

namespace dynamic_tinybert {
namespace {

// Written in assembly, because GCC 12 copies sums between registers or to the stack around the intrinsics.

/// Adds to each 32-bit sum four products of an unsigned and a signed 8-bit number.
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_ones), "v"(signed_ones));
}

/// Adds to each 32-bit sum two products of signed 16-bit numbers.
inline void add_products_of_16_bits(Ints& sums, Ints a, Ints b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

constexpr bool splits_weights = false;
constexpr size_t strip_rows = 6, strip_vectors = 4;  // whose sums stay in registers

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/vector_kernels.inl"
#include "kernels/linear_int8_tiles.inl"

#pragma GCC pop_options

namespace dynamic_tinybert {
namespace {

bool runs_here() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

bool runs_tiles_here() {
    return runs_here() && may_use_tiles();
}

const LinearKernels linear_int8_tiles{.packed_size = packed_weights_size,
                                      .pack = pack_weights,
                                      .quantize_rows = quantize_rows,
                                      .multiply_panel = multiply_panel_by_tiles<AmxTiles>};

}  // namespace

const Kernels kernels_amx = vector_kernels("amx", runs_tiles_here, &linear_int8_tiles);
const Kernels kernels_avx512_vnni = vector_kernels("avx512_vnni", runs_here);

}  // namespace dynamic_tinybert
