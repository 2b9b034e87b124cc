// The products of 8 bits by tiles in plain code, with the vectors of the file that includes this: they finish the sums.

namespace dynamic_tinybert {
namespace {

/// In plain code: the few rows that take no tiles need not be fast here.
inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    uint8_t a[4 * lanes];
    int8_t b[4 * lanes];
    int32_t c[lanes];
    store_ints(a, unsigned_ones);
    store_ints(b, signed_ones);
    store_ints(c, sums);
    for (size_t k = 0; k < 4 * lanes; ++k)
        c[k / 4] += a[k] * b[k];
    sums = load_ints(c);
}

constexpr bool splits_weights = false;
constexpr size_t strip_rows = 1, strip_vectors = panel_columns / lanes;

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/linear_int8.inl"
#include "kernels/linear_int8_tiles.inl"
