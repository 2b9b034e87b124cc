#pragma once

#include <initializer_list>
#include <openvino/core/partial_shape.hpp>

namespace dynamic_tinybert {

/// Whether a shape may have these dimensions, that many of them; what it says of each is merged into it.
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
