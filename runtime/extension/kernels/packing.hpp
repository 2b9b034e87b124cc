#pragma once
// Layouts of packed 8-bit weights. Each begins with panels of 64 columns, [depth / 4, 64, 4] or, in parts of fewer
// columns, [64 / columns, depth / 4, columns, 4].

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

/// CPUs without VNNI add pairs of products in 16 bits, u8 * s8 + u8 * s8. That saturates only if the positive weights
/// of the pair sum to more than 128, or the negative ones to less than -128. Such pairs are split: the panels hold the
/// part that cannot saturate, and the remainder follows the panels. For each group of columns and each four rows of the
/// weights, it has an entry if any column of the group has a remainder there.
struct Remainder {
    const int32_t* begin;   ///< Index of the first entry of each group; the last element is the number of entries.
    const int32_t* depth;   ///< For each entry, the index of the first of the four numbers of a row that it multiplies.
    const int8_t* weights;  ///< For each entry, its weights, [columns of the group, 4].
};

/// Number of bytes of the panels.
size_t panels_size(size_t width, size_t depth);

/// Writes weights [width, depth] in panels, whose parts have this number of columns.
void pack_panels(const int8_t* weights, size_t width, size_t depth, size_t columns, int8_t* packed);

/// The same with saturating pairs split; `group` is the number of columns of a group of the remainder.
size_t split_size(const int8_t* weights, size_t width, size_t depth, size_t group);
void pack_split(const int8_t* weights, size_t width, size_t depth, size_t columns, size_t group, int8_t* packed);

/// Finds the remainder behind the panels.
Remainder remainder_of(const int8_t* packed, size_t width, size_t depth, size_t group);

}  // namespace dynamic_tinybert
