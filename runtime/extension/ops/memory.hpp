#pragma once

#include <cstddef>
#include <vector>

namespace dynamic_tinybert {

/// Memory that grows to what the longest input needs, and stays: a vector that shrank would be filled again.
template <typename Number, typename Allocator>
Number* at_least(std::vector<Number, Allocator>& memory, size_t size) {
    if (memory.size() < size)
        memory.resize(size);
    return memory.data();
}

}  // namespace dynamic_tinybert
