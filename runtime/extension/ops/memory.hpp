#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
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

/// Memory of a kind that one user at a time has. What is given back is lent again, the last one first, so that there is
/// as much of it as is used at once, however many threads use it: a service may call from dozens of threads.
template <typename Kind>
class Lent {
public:
    Lent() {
        const std::lock_guard<std::mutex> lock(idle().mutex);
        if (idle().memory.empty()) {
            idle().memory.reserve(++idle().count);  // so that giving back cannot fail
            m_memory = std::make_unique<Kind>();
        } else {
            m_memory = std::move(idle().memory.back());
            idle().memory.pop_back();
        }
    }
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    ~Lent() {
        const std::lock_guard<std::mutex> lock(idle().mutex);
        idle().memory.push_back(std::move(m_memory));
    }

    Kind& operator*() const { return *m_memory; }

private:
    struct Idle {
        std::mutex mutex;
        std::vector<std::unique_ptr<Kind>> memory;
        size_t count = 0;  // of all memory of this kind
    };

    static Idle& idle() {
        static Idle& all = *new Idle;  // never destroyed: threads may still run while the process ends
        return all;
    }

    std::unique_ptr<Kind> m_memory;
};

}  // namespace dynamic_tinybert
