#pragma once
// The tiles of AMX: eight registers of 16 rows of 64 bytes. A kernel takes them as a type, so that it can be tested where
// there are none: PlainTiles in tests/kernels/plain_tiles.hpp has the same functions.

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

constexpr size_t tile_rows = 16, tile_bytes = 64, num_tiles = 8;

/// The size of each tile, as the CPU reads it. A tile of no rows must not be used.
struct alignas(64) TileSizes {
    uint8_t palette = 1;
    uint8_t unused[15] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    constexpr void set(size_t tile, size_t count, size_t bytes) {
        rows[tile] = static_cast<uint8_t>(count);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
};
static_assert(sizeof(TileSizes) == 64);

/// Those of the CPU. As assembly: these instructions need no more of the compiler, and GCC 12's intrinsics say that only
/// 8 bytes of the sizes are read.
struct AmxTiles {
    /// Gives all tiles their sizes, and makes them zero.
    static void configure(const TileSizes& sizes) { __asm__ volatile("ldtilecfg %0" : : "m"(sizes)); }

    /// Forgets sizes and contents: the thread then has nothing to save, and others configure tiles as they like.
    static void release() { __asm__ volatile("tilerelease"); }

    template <int tile>
    static void zero() {
        __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
    }

    template <int tile>
    static void load(const void* from, size_t stride) {
        __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(stride) : "memory");
    }

    template <int tile>
    static void store(void* to, size_t stride) {
        __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(tile), "r"(to), "r"(stride) : "memory");
    }

    /// sums[i, j] += over k, four at once: unsigned_ones[i, k] * signed_ones[k / 4, 4 j + k % 4].
    template <int sums, int unsigned_ones, int signed_ones>
    static void dot() {
        __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(unsigned_ones), "i"(signed_ones));
    }
};

/// Whether this CPU has tiles for products of 8 bits.
bool cpu_has_tiles();

/// Whether it has, and the operating system lets this process use them, which is asked once.
bool may_use_tiles();

}  // namespace dynamic_tinybert
