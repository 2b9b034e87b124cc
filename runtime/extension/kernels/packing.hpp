#pragma once
// How weights of 8 bits lie. Every layout begins with the panels: 64 columns one after the other, [depth / 4, 64, 4], or
// as parts of fewer columns, [64 / columns, depth / 4, columns, 4].

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// Where a CPU adds two products of 8 bits in 16, u8 * s8 + u8 * s8, the sum saturates only if the positive ones of the
/// two weights sum to more than 128, or the negative ones to less than -128. Such pairs are split: the panels hold as
/// much as cannot saturate, and behind them lies the remainder, of whole groups of columns, for the few depths where a
/// column of the group has any.
struct Remainder {
    const int32_t* begin;   ///< Of each group, where its entries begin; one more says where the last ones end.
    const int32_t* depth;   ///< Of each entry, the first of the four numbers of a row that it is multiplied by.
    const int8_t* weights;  ///< Of each entry, [columns of the group, 4].
};

/// Bytes of the panels.
size_t panels_size(size_t width, size_t depth);

/// Lays out weights [width, depth] in panels, in parts of so many columns.
void pack_panels(const int8_t* weights, size_t width, size_t depth, size_t columns, int8_t* packed);

/// The same with saturating pairs split, the remainder in groups of so many columns.
size_t split_size(const int8_t* weights, size_t width, size_t depth, size_t group);
void pack_split(const int8_t* weights, size_t width, size_t depth, size_t columns, size_t group, int8_t* packed);

/// The remainder behind the panels.
Remainder remainder_of(const int8_t* packed, size_t width, size_t depth, size_t group);

}  // namespace dynamic_tinybert
