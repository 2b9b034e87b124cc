// Tiles in plain code, their sums finished by vectors of 256 bits.

#include "checks.hpp"
#include "kernels/vector_kernels.hpp"
#include "plain_tiles.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

#include "kernels/vectors_256.inl"
#include "plain_tiles.inl"

#pragma GCC pop_options

namespace dynamic_tinybert {

const LinearKernels linear_int8_plain_tiles_256{.packed_size = packed_weights_size,
                                               .pack = pack_weights,
                                               .quantize_rows = quantize_rows,
                                               .multiply_panel = multiply_panel_by_tiles<PlainTiles>};

}  // namespace dynamic_tinybert
