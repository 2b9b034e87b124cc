#pragma once

#include <cstddef>
#include <vector>

namespace dynamic_tinybert {

/// A buffer of at least `size` numbers. It grows to what the longest input needs and never shrinks, because a vector
/// that shrank would be initialised again.
template <typename Number, typename Allocator>
Number* at_least(std::vector<Number, Allocator>& memory, size_t size) {
    if (memory.size() < size)
        memory.resize(size);
    return memory.data();
}

}  // namespace dynamic_tinybert
