// Matrix products of 8-bit integers in tiles. The sums of up to 32 rows by 32 columns stay in tiles 4 to 7; tiles 0 and
// 1 hold 64 numbers of each of 16 columns of the weights, tiles 2 and 3 64 numbers of each of 16 rows. Panels that are
// a single part already have the layout of tiles: four numbers each of 16 columns are one row of a tile.

namespace dynamic_tinybert {
namespace {

static_assert(part_columns == panel_columns);

/// Fewer rows than this are multiplied with vectors. The number is a guess: no CPU with tiles was available to measure.
constexpr size_t rows_worth_tiles = 16;

constexpr size_t tile_columns = tile_bytes / sizeof(int32_t);  // of sums
constexpr size_t rows_at_once = 2 * tile_rows, columns_at_once = 2 * tile_columns;

/// Sizes for at most 32 rows and a step of `step` numbers of each row.
TileSizes tile_sizes(size_t rows, size_t step) {
    TileSizes sizes;
    const size_t of_rows[2] = {std::min(rows, tile_rows), rows - std::min(rows, tile_rows)};
    for (size_t half = 0; half < 2; ++half) {
        sizes.set(half, step / depth_step, tile_bytes);
        if (of_rows[half] == 0)
            continue;
        sizes.set(2 + half, of_rows[half], step);
        sizes.set(4 + 2 * half, of_rows[half], tile_bytes);
        sizes.set(5 + 2 * half, of_rows[half], tile_bytes);
    }
    return sizes;
}

/// Sizes for whole steps of the depth, and for the rest of the depth.
struct SizesOfRows {
    TileSizes whole, rest;

    SizesOfRows(size_t rows, size_t depth)
        : whole(tile_sizes(rows, tile_bytes)), rest(tile_sizes(rows, depth % tile_bytes)) {}
};

/// Products of at most 32 rows by 32 columns; `both` tells that there are more than 16 rows.
template <typename Tiles, bool both>
struct TileProducts {
    static constexpr size_t stride = panel_columns * depth_step;  // bytes from one row of the weights to the next

    /// Writes the sums of 32 columns into rows of 64. If the depth has whole steps, the tiles are left configured for
    /// them; `configured` tells whether they already are.
    static void multiply(const uint8_t* from, size_t depth, const int8_t* weights, const SizesOfRows& sizes,
                         bool configured, int32_t* sums) {
        const size_t rest = depth % tile_bytes;
        if (rest) {  // first, because a new configuration clears the sums
            Tiles::configure(sizes.rest);
            zero();
            add(from + depth - rest, depth, weights + (depth - rest) * panel_columns);
            store(sums);
        }
        if (rest == depth)
            return;
        if (rest) {
            Tiles::configure(sizes.whole);
            load(sums);
        } else {
            if (!configured)
                Tiles::configure(sizes.whole);
            zero();
        }
        for (size_t k = 0; k + tile_bytes <= depth; k += tile_bytes)
            add(from + k, depth, weights + k * panel_columns);
        store(sums);
    }

private:
    static constexpr size_t sums_stride = panel_columns * sizeof(int32_t);

    static void add(const uint8_t* from, size_t depth, const int8_t* weights) {
        Tiles::template load<0>(weights, stride);
        Tiles::template load<2>(from, depth);
        Tiles::template dot<4, 2, 0>();
        Tiles::template load<1>(weights + tile_bytes, stride);
        Tiles::template dot<5, 2, 1>();
        if constexpr (both) {
            Tiles::template load<3>(from + tile_rows * depth, depth);
            Tiles::template dot<6, 3, 0>();
            Tiles::template dot<7, 3, 1>();
        }
    }

    static void zero() {
        Tiles::template zero<4>();
        Tiles::template zero<5>();
        if constexpr (both) {
            Tiles::template zero<6>();
            Tiles::template zero<7>();
        }
    }

    static void load(const int32_t* sums) {
        Tiles::template load<4>(sums, sums_stride);
        Tiles::template load<5>(sums + tile_columns, sums_stride);
        if constexpr (both) {
            Tiles::template load<6>(sums + tile_rows * panel_columns, sums_stride);
            Tiles::template load<7>(sums + tile_rows * panel_columns + tile_columns, sums_stride);
        }
    }

    static void store(int32_t* sums) {
        Tiles::template store<4>(sums, sums_stride);
        Tiles::template store<5>(sums + tile_columns, sums_stride);
        if constexpr (both) {
            Tiles::template store<6>(sums + tile_rows * panel_columns, sums_stride);
            Tiles::template store<7>(sums + tile_rows * panel_columns + tile_columns, sums_stride);
        }
    }
};

/// Turns sums [rows, 64] of the columns from `first` on into results.
void finish_panel(const Linear& linear, const int32_t* sums, size_t rows, size_t first, float* result,
                  uint8_t* quantized) {
    for (size_t column = first; column < std::min(first + panel_columns, linear.width); column += lanes) {
        const Finish finish(linear, column);
        for (size_t i = 0; i < rows; ++i)
            finish.write(load_ints(sums + i * panel_columns + column - first), i, result, quantized);
    }
}

template <typename Tiles>
void multiply_panel_by_tiles(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                             uint8_t* quantized) {
    alignas(64) int32_t sums[rows_at_once * panel_columns];
    const size_t depth = linear.depth, first = panel * panel_columns;
    const size_t columns = std::min(panel_columns, linear.width - first);
    const int8_t* weights = linear.weights + first * depth;
    SizesOfRows sizes(std::min(rows, rows_at_once), depth);
    size_t configured_for = 0;  // rows
    while (rows >= rows_worth_tiles) {
        const size_t now = std::min(rows, rows_at_once);
        if (configured_for && configured_for != now)
            sizes = SizesOfRows(now, depth);
        const auto multiply = now > tile_rows ? TileProducts<Tiles, true>::multiply : TileProducts<Tiles, false>::multiply;
        for (size_t column = 0; column < columns; column += columns_at_once) {
            multiply(from, depth, weights + column * depth_step, sizes, configured_for == now, sums + column);
            configured_for = now;
        }
        finish_panel(linear, sums, now, first, result, quantized);
        from += now * depth;
        if (linear.inv_scale)
            quantized += now * linear.width;
        else
            result += now * linear.width;
        rows -= now;
    }
    if (configured_for)
        Tiles::release();
    if (rows)
        multiply_panel(linear, from, rows, panel, result, quantized);
}

}  // namespace
}  // namespace dynamic_tinybert
