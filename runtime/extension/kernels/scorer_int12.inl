// States are projected in integers of 12 bits; all that follows is small and in f32.

namespace dynamic_tinybert {
namespace {

static_assert(scorer_columns == 16);

/// Number of floats that one packed panel takes, each of which holds two integers.
constexpr size_t panel_size(size_t depth) {
    return round_up(depth, 2) / 2 * scorer_columns;
}

/// The panels as integers, each one vector of columns after the other, [depth / 2, lanes, 2]; then the scales of all
/// columns.
size_t packed_scorer_size(size_t depth, size_t count) {
    return count * (panel_size(depth) + scorer_columns);
}

/// Index at which the scales of the columns begin.
size_t scales_at(const ScorerPanels& panels) {
    return panels.count * panel_size(panels.depth);
}

void pack_scorer(const ScorerPanels& panels, size_t panel, float* packed) {
    float* to = packed + panel * panel_size(panels.depth);
    for (size_t first = 0; first < scorer_columns; first += lanes) {
        const float* column = panels.columns + panel * panels.depth * scorer_columns + first;
        const auto row = [&](size_t k) { return load(column + k * scorer_columns); };
        Floats largest = all(0.0f);
        for (size_t k = 0; k < panels.depth; ++k)
            largest = larger(largest, absolute(row(k)));
        Floats inv_scale;
        store(packed + scales_at(panels) + panel * scorer_columns + first,
              scales_of(largest, most_of_column(panels.depth), inv_scale));
        for (size_t k = 0; k < panels.depth; k += 2, to += lanes) {
            const Ints odd = k + 1 < panels.depth ? to_nearest(mul(row(k + 1), inv_scale)) : no_ints();
            store_ints(to, pair_up(to_nearest(mul(row(k), inv_scale)), odd));
        }
    }
}

void project(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
             size_t stride) {
    thread_local Aligned<int16_t> left;
    thread_local std::vector<float> scales;
    const size_t depth = round_up(panels.depth, 2), columns = count * scorer_columns;
    left.resize(rows * depth + 16);
    scales.resize(rows);
    for (size_t i = 0; i < rows; ++i)
        scales[i] = row_in_12_bits(state + i * panels.depth, panels.depth, left.data() + i * depth);
    const auto* right = reinterpret_cast<const int16_t*>(panels.packed + first * panel_size(panels.depth));
    const float* of_columns = panels.packed + scales_at(panels) + first * scorer_columns;
    multiply_16_bits(left.data(), depth, rows, depth / 2, in_panels(right, depth, of_columns), columns, nullptr, to, stride);
    for (size_t i = 0; i < rows; ++i)
        for (size_t w = 0; w < columns; w += lanes) {
            float* at = to + i * stride + w;
            store(at, mul(load(at), all(scales[i])));
        }
}

const ScorerKernels scorer_int12{.packed_size = packed_scorer_size,
                                 .pack = pack_scorer,
                                 .project = project,
                                 .features = features,
                                 .convolve_mix = convolve_mix};

}  // namespace
}  // namespace dynamic_tinybert
