#include "kernels/packing.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/linear_kernels.hpp"

namespace dynamic_tinybert {
namespace {

constexpr int most_of_a_pair = 128;  // 255 * 128 = 32,640 fits into 16 bits, 255 * 129 does not

constexpr size_t to_whole_lines(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

struct Sizes {
    size_t panels, begin, depth, weights;  // bytes

    Sizes(size_t width, size_t depth, size_t group, size_t entries)
        : panels(panels_size(width, depth)),
          begin(to_whole_lines((panels_of(width) * panel_columns / group + 1) * sizeof(int32_t))),
          depth(to_whole_lines(entries * sizeof(int32_t))),
          weights(to_whole_lines(entries * group * depth_step)) {}

    size_t all() const { return panels + begin + depth + weights; }
};

/// What must be taken off the first and the second weight of a pair.
struct Excess {
    int first, second;

    Excess(int a, int b) : first(0), second(0) {
        if (a > 0 && b > 0) {
            const int excess = std::max(a + b - most_of_a_pair, 0);
            first = std::min(a, excess);
            second = excess - first;
        } else if (a < 0 && b < 0) {
            const int excess = std::min(a + b + most_of_a_pair, 0);
            first = std::max(a, excess);
            second = excess - first;
        }
    }

    bool any() const { return first != 0 || second != 0; }
};

bool saturates(const int8_t* four) {
    return Excess(four[0], four[1]).any() || Excess(four[2], four[3]).any();
}

/// Moves what saturates from four weights of the panels to four of the remainder.
void split(int8_t* four, int8_t* remainder) {
    for (size_t i = 0; i < depth_step; i += 2) {
        const Excess excess(four[i], four[i + 1]);
        four[i] = static_cast<int8_t>(four[i] - excess.first);
        four[i + 1] = static_cast<int8_t>(four[i + 1] - excess.second);
        remainder[i] = static_cast<int8_t>(excess.first);
        remainder[i + 1] = static_cast<int8_t>(excess.second);
    }
}

/// `found(k)` for each depth, a multiple of 4, where a column of the group that begins with `first` has a remainder.
template <typename Found>
void for_entries(const int8_t* weights, size_t width, size_t depth, size_t first, size_t group, const Found& found) {
    const size_t last = std::min(first + group, width);
    for (size_t k = 0; k < depth; k += depth_step)
        for (size_t column = first; column < last; ++column)
            if (saturates(weights + column * depth + k)) {
                found(k);
                break;
            }
}

}  // namespace

size_t panels_size(size_t width, size_t depth) {
    return panels_of(width) * panel_columns * depth;
}

void pack_panels(const int8_t* weights, size_t width, size_t depth, size_t columns, int8_t* packed) {
    std::memset(packed, 0, panels_size(width, depth));
    for (size_t column = 0; column < width; ++column) {
        int8_t* to = packed + column / columns * columns * depth + column % columns * depth_step;
        for (size_t k = 0; k < depth; k += depth_step, to += columns * depth_step)
            std::memcpy(to, weights + column * depth + k, depth_step);
    }
}

size_t split_size(const int8_t* weights, size_t width, size_t depth, size_t group) {
    size_t entries = 0;
    for (size_t first = 0; first < width; first += group)
        for_entries(weights, width, depth, first, group, [&](size_t) { ++entries; });
    return Sizes(width, depth, group, entries).all();
}

void pack_split(const int8_t* weights, size_t width, size_t depth, size_t columns, size_t group, int8_t* packed) {
    pack_panels(weights, width, depth, columns, packed);
    std::vector<int32_t> begin, depths;
    for (size_t first = 0; first < panels_of(width) * panel_columns; first += group) {
        begin.push_back(static_cast<int32_t>(depths.size()));
        for_entries(weights, width, depth, first, group,
                    [&](size_t k) { depths.push_back(static_cast<int32_t>(k)); });
    }
    begin.push_back(static_cast<int32_t>(depths.size()));
    const Sizes sizes(width, depth, group, depths.size());
    int8_t *begin_at = packed + sizes.panels, *depth_at = begin_at + sizes.begin, *weights_at = depth_at + sizes.depth;
    std::memset(begin_at, 0, sizes.all() - sizes.panels);
    std::copy(begin.begin(), begin.end(), reinterpret_cast<int32_t*>(begin_at));
    std::copy(depths.begin(), depths.end(), reinterpret_cast<int32_t*>(depth_at));  // of which there may be none
    for (size_t g = 0; g + 1 < begin.size(); ++g)
        for (int32_t entry = begin[g]; entry < begin[g + 1]; ++entry)
            for (size_t j = 0; j < group; ++j) {
                const size_t column = g * group + j, k = depths[entry];
                split(packed + column / columns * columns * depth + (k / depth_step * columns + column % columns) * depth_step,
                      weights_at + (entry * group + j) * depth_step);
            }
}

Remainder remainder_of(const int8_t* packed, size_t width, size_t depth, size_t group) {
    const auto* begin = reinterpret_cast<const int32_t*>(packed + panels_size(width, depth));
    const Sizes sizes(width, depth, group, begin[panels_of(width) * panel_columns / group]);
    const int8_t* depth_at = packed + sizes.panels + sizes.begin;
    return {begin, reinterpret_cast<const int32_t*>(depth_at), depth_at + sizes.depth};
}

}  // namespace dynamic_tinybert
