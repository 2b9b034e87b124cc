#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <openvino/core/except.hpp>
#include <openvino/core/partial_shape.hpp>
#include <openvino/runtime/tensor.hpp>

namespace dynamic_tinybert {

/// Largest width, number of heads and the like. The product of three such sizes fits into 64 bits with room to spare,
/// and the sum of this many 8-bit products fits into 32 bits.
constexpr int64_t largest_size = 64 * 1024;

/// Largest number of rows of a table, and of tokens of a sequence: their indices have 32 bits.
constexpr int64_t longest = std::numeric_limits<int32_t>::max() - 1;

/// Refuses a size with which later arithmetic would overflow. Graphs are not trusted: they may come from anyone.
inline void check_size(const char* op, const char* name, int64_t size, int64_t most) {
    OPENVINO_ASSERT(size <= most, op, ": ", name, " is ", size, "; at most ", most, " is allowed");
}

inline void check_size(const char* op, const char* name, const ov::Dimension& size, int64_t most) {
    if (size.is_static())
        check_size(op, name, size.get_length(), most);
}

/// Checks a shape that was unknown when the graph was built, before anything is read or written.
inline void check_shape(const char* op, const char* name, const ov::Tensor& tensor, const ov::Shape& shape) {
    OPENVINO_ASSERT(tensor.get_shape() == shape, op, ": ", name, " has shape ", tensor.get_shape(), " where ", shape,
                    " is needed");
}

/// Whether a shape can have these dimensions. Merges each dimension of the shape into the given one.
inline bool merge_dimensions(const ov::PartialShape& shape, std::initializer_list<ov::Dimension*> dimensions) {
    if (shape.rank().is_dynamic())
        return true;
    if (shape.size() != dimensions.size())
        return false;
    size_t k = 0;
    for (ov::Dimension* dimension : dimensions)
        if (!ov::Dimension::merge(*dimension, *dimension, shape[k++]))
            return false;
    return true;
}

}  // namespace dynamic_tinybert
