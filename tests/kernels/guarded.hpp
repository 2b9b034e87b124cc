#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace dynamic_tinybert {

/// An array that ends right before memory that nobody may touch: whoever reads or writes beyond it, by masked vectors or
/// by assembly that no sanitizer sees into, ends the program. What lies before it must not be written to.
template <typename T>
class Guarded {
public:
    explicit Guarded(size_t count, T value = T{}) : m_count(count) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t inner = (count * sizeof(T) + page - 1) / page * page;
        m_size = inner + 2 * page;
        void* memory = mmap(nullptr, m_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || (inner && mprotect(static_cast<char*>(memory) + page, inner, PROT_READ | PROT_WRITE)))
            fail("no memory for an array of the test");
        m_memory = static_cast<char*>(memory);
        m_before = m_memory + page;
        m_data = reinterpret_cast<T*>(m_before + inner - count * sizeof(T));
        std::memset(m_before, filling, inner);
        for (size_t k = 0; k < count; ++k)
            m_data[k] = value;
    }

    explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
        for (size_t k = 0; k < m_count; ++k)
            m_data[k] = values[k];
    }

    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    ~Guarded() {
        for (const char* byte = m_before; byte < reinterpret_cast<char*>(m_data); ++byte)
            if (*byte != filling)
                fail("something wrote before the beginning of an array");
        munmap(m_memory, m_size);
    }

    T* data() { return m_data; }
    const T* data() const { return m_data; }
    size_t size() const { return m_count; }
    T& operator[](size_t k) { return m_data[k]; }
    const T& operator[](size_t k) const { return m_data[k]; }

private:
    static constexpr char filling = 0x5A;

    [[noreturn]] static void fail(const char* why) {
        std::fprintf(stderr, "%s\n", why);
        std::exit(1);
    }

    size_t m_count, m_size = 0;
    char *m_memory = nullptr, *m_before = nullptr;
    T* m_data = nullptr;
};

}  // namespace dynamic_tinybert
