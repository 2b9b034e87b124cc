#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace dynamic_tinybert {

/// Memory that begins with a line of the cache.
template <typename T>
struct CacheAligned {
    using value_type = T;

    CacheAligned() = default;
    template <typename U>
    CacheAligned(const CacheAligned<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64})); }
    void deallocate(T* memory, size_t) { ::operator delete(memory, std::align_val_t{64}); }

    template <typename U>
    bool operator==(const CacheAligned<U>&) const {
        return true;
    }
    template <typename U>
    bool operator!=(const CacheAligned<U>&) const {
        return false;
    }
};

template <typename T>
using Aligned = std::vector<T, CacheAligned<T>>;

}  // namespace dynamic_tinybert
