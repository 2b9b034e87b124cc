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

/// Sizes in bytes of the panels and of the parts of the remainder.
struct Sizes {
    size_t panels, begin, depth, weights;

    Sizes(size_t width, size_t depth, size_t group, size_t entries)
        : panels(panels_size(width, depth)),
          begin(to_whole_lines((panels_of(width) * panel_columns / group + 1) * sizeof(int32_t))),
          depth(to_whole_lines(entries * sizeof(int32_t))),
          weights(to_whole_lines(entries * group * depth_step)) {}

    size_t all() const { return panels + begin + depth + weights; }
};

/// By how much the sum of a pair of weights exceeds its limit; 0 for pairs of opposite signs.
int excess_of(const int8_t* pair) {
    const int sum = pair[0] + pair[1];
    return sum - std::clamp(sum, -most_of_a_pair, most_of_a_pair);
}

/// Moves the part that would saturate from four weights of the panels to four weights of the remainder.
void split(int8_t* four, int8_t* remainder) {
    for (size_t i = 0; i < depth_step; i += 2) {
        const int excess = excess_of(four + i);
        const int first = excess > 0 ? std::min<int>(four[i], excess) : excess < 0 ? std::max<int>(four[i], excess) : 0;
        remainder[i] = static_cast<int8_t>(first);
        remainder[i + 1] = static_cast<int8_t>(excess - first);
        four[i] = static_cast<int8_t>(four[i] - remainder[i]);
        four[i + 1] = static_cast<int8_t>(four[i + 1] - remainder[i + 1]);
    }
}

/// For each group of columns and each four weights of a column, whether any column of the group has a saturating pair.
std::vector<uint8_t> saturating_fours(const int8_t* weights, size_t width, size_t depth, size_t group) {
    const size_t fours = depth / depth_step;
    std::vector<uint8_t> found(panels_of(width) * panel_columns / group * fours);
    for (size_t column = 0; column < width; ++column, weights += depth) {
        uint8_t* of_group = found.data() + column / group * fours;
        for (size_t i = 0; i < fours; ++i)
            of_group[i] |= (excess_of(weights + 4 * i) != 0) | (excess_of(weights + 4 * i + 2) != 0);
    }
    return found;
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
    const std::vector<uint8_t> saturating = saturating_fours(weights, width, depth, group);
    return Sizes(width, depth, group, std::count(saturating.begin(), saturating.end(), 1)).all();
}

void pack_split(const int8_t* weights, size_t width, size_t depth, size_t columns, size_t group, int8_t* packed) {
    pack_panels(weights, width, depth, columns, packed);
    const std::vector<uint8_t> saturating = saturating_fours(weights, width, depth, group);
    const size_t fours = depth / depth_step;
    std::vector<int32_t> begin, depths;
    for (size_t g = 0; g < saturating.size() / fours; ++g) {
        begin.push_back(static_cast<int32_t>(depths.size()));
        for (size_t i = 0; i < fours; ++i)
            if (saturating[g * fours + i])
                depths.push_back(static_cast<int32_t>(i * depth_step));
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
