#include "kernels/tiles.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace dynamic_tinybert {
namespace {

constexpr unsigned has_tiles = 1u << 24, has_products_of_8_bits = 1u << 25;  // of EDX
constexpr unsigned os_saves_state = 1u << 27;                               // of ECX
constexpr unsigned tile_sizes = 1u << 17, tile_data = 1u << 18;             // of XCR0
constexpr long ask_for_state = 0x1023, state_of_tiles = 18;                 // of arch_prctl

unsigned states_that_are_saved() {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

bool os_saves_tiles() {
    unsigned a, b, c, d;
    constexpr unsigned both = tile_sizes | tile_data;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & os_saves_state) && (states_that_are_saved() & both) == both;
}

}  // namespace

bool cpu_has_tiles() {
    unsigned a, b, c, d;
    constexpr unsigned both = has_tiles | has_products_of_8_bits;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & both) == both;
}

bool may_use_tiles() {
    // Linux grants the 8 KiB that each thread's tiles need only to a process that asks; the grant holds for all its
    // threads.
    static const bool may =
        cpu_has_tiles() && os_saves_tiles() && syscall(SYS_arch_prctl, ask_for_state, state_of_tiles) == 0;
    return may;
}

}  // namespace dynamic_tinybert
