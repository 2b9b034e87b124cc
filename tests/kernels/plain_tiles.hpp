#pragma once
// The tiles of AMX in plain code, by the CPU's manual: what would be a fault there ends the program.

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "checks.hpp"
#include "kernels/tiles.hpp"

namespace dynamic_tinybert {

class PlainTiles {
public:
    static void configure(const TileSizes& sizes) {
        if (sizes.palette != 1)
            fault("another palette than 1");
        for (uint8_t byte : sizes.unused)
            if (byte)
                fault("bytes that must be zero");
        for (size_t tile = 0; tile < num_tiles; ++tile)
            if (sizes.rows[tile] > tile_rows || sizes.row_bytes[tile] > tile_bytes)
                fault("a tile that is too large");
        for (size_t tile = num_tiles; tile < 16; ++tile)
            if (sizes.rows[tile] || sizes.row_bytes[tile])
                fault("sizes of tiles that are not there");
        s_sizes = sizes;
        s_configured = true;
        s_tiles = {};
    }

    static void release() { s_configured = false; }

    template <int tile>
    static void zero() {
        used(tile);
        s_tiles[tile] = {};
    }

    template <int tile>
    static void load(const void* from, size_t stride) {
        zero<tile>();
        for (size_t row = 0; row < s_sizes.rows[tile]; ++row)
            std::memcpy(s_tiles[tile][row].data(), static_cast<const char*>(from) + row * stride, s_sizes.row_bytes[tile]);
    }

    template <int tile>
    static void store(void* to, size_t stride) {
        used(tile);
        for (size_t row = 0; row < s_sizes.rows[tile]; ++row)
            std::memcpy(static_cast<char*>(to) + row * stride, s_tiles[tile][row].data(), s_sizes.row_bytes[tile]);
    }

    template <int sums, int unsigned_ones, int signed_ones>
    static void dot() {
        static_assert(sums != unsigned_ones && sums != signed_ones && unsigned_ones != signed_ones);
        for (int tile : {sums, unsigned_ones, signed_ones})
            used(tile);
        const size_t rows = s_sizes.rows[sums], columns = s_sizes.row_bytes[sums] / 4, depth = s_sizes.rows[signed_ones];
        if (rows != s_sizes.rows[unsigned_ones] || columns != s_sizes.row_bytes[signed_ones] / 4u ||
            depth != s_sizes.row_bytes[unsigned_ones] / 4u)
            fault("a product of tiles whose sizes do not fit");
        for (size_t i = 0; i < rows; ++i)
            for (size_t k = 0; k < depth; ++k)
                for (size_t j = 0; j < columns; ++j) {
                    int32_t sum;
                    std::memcpy(&sum, &s_tiles[sums][i][4 * j], sizeof sum);
                    for (size_t one = 0; one < 4; ++one)
                        sum += s_tiles[unsigned_ones][i][4 * k + one] *
                               static_cast<int8_t>(s_tiles[signed_ones][k][4 * j + one]);
                    std::memcpy(&s_tiles[sums][i][4 * j], &sum, sizeof sum);
                }
        ++s_products;
    }

    /// Products of tiles so far.
    static size_t products() { return s_products; }

    /// Whether the last one who used tiles has released them.
    static bool released() { return !s_configured; }

private:
    using Tile = std::array<std::array<uint8_t, tile_bytes>, tile_rows>;

    static void used(int tile) {
        if (!s_configured || s_sizes.rows[tile] == 0 || s_sizes.row_bytes[tile] == 0)
            fault("a tile that has no size");
    }

    [[noreturn]] static void fault(const char* what) {
        std::printf("BROKEN OFF at %s: %s\n", current_check(), what);
        std::exit(1);
    }

    static inline TileSizes s_sizes;
    static inline bool s_configured = false;
    static inline std::array<Tile, num_tiles> s_tiles;
    static inline size_t s_products = 0;
};

}  // namespace dynamic_tinybert
