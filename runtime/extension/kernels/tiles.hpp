#pragma once
// The tiles of AMX: eight registers of 16 rows of 64 bytes. Kernels take them as a template parameter, so that they can
// be tested on CPUs without tiles: PlainTiles in tests/kernels/plain_tiles.hpp has the same functions.

#include <cstddef>
#include <cstdint>

namespace dynamic_tinybert {

constexpr size_t tile_rows = 16, tile_bytes = 64, num_tiles = 8;

/// The sizes of all tiles, in the layout that the CPU reads. A tile without rows must not be used.
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

/// The tiles of the CPU. Written in assembly, because GCC 12's intrinsics declare that only 8 bytes of the sizes are
/// read.
struct AmxTiles {
    /// Sets the sizes of all tiles and clears them.
    static void configure(const TileSizes& sizes) { __asm__ volatile("ldtilecfg %0" : : "m"(sizes)); }

    /// Releases the tiles, so that the operating system need not save them for this thread.
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

    /// sums[i, j] += the sum over k of unsigned_ones[i, k] * signed_ones[k / 4, 4 j + k % 4].
    template <int sums, int unsigned_ones, int signed_ones>
    static void dot() {
        __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(unsigned_ones), "i"(signed_ones));
    }
};

/// Whether this CPU has tiles and multiplies 8-bit integers in them.
bool cpu_has_tiles();

/// Whether this process may use them as well; asks the operating system once.
bool may_use_tiles();

}  // namespace dynamic_tinybert
