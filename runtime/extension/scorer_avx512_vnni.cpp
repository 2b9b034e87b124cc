// AVX-512 with VNNI: states are projected in integers of 12 bits; what follows is small, and AVX2's.

#include <tbb/cache_aligned_allocator.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "avx512_vnni.hpp"
#include "scorer_avx2.hpp"

namespace dynamic_tinybert {
namespace {

static_assert(scorer_columns == lanes);

/// Floats of one packed panel, two numbers in each.
constexpr size_t panel_size(size_t depth) {
    return round_up(depth, 2) / 2 * lanes;
}

/// Panels in whole numbers, [depth / 2, 16, 2] each; then the units of their columns.
size_t packed_size(size_t depth, size_t count) {
    return count * (panel_size(depth) + lanes);
}

/// The largest number of a column: so many products of it and 12 bits must fit into 32.
float most_of_column(size_t depth) {
    const float most = static_cast<float>(std::numeric_limits<int32_t>::max()) / most_12_bits / static_cast<float>(depth);
    return std::min(most_12_bits, std::floor(most));
}

/// Where the units of the columns begin.
size_t units_at(const ScorerPanels& panels) {
    return panels.count * panel_size(panels.depth);
}

AVX512 void pack(const ScorerPanels& panels, size_t panel, float* packed) {
    const float* column = panels.columns + panel * panels.depth * lanes;
    __m512 largest = _mm512_setzero_ps();
    for (size_t k = 0; k < panels.depth; ++k)
        largest = _mm512_max_ps(largest, absolute(_mm512_loadu_ps(column + k * lanes)));
    const __m512 most = _mm512_set1_ps(most_of_column(panels.depth));
    _mm512_storeu_ps(packed + units_at(panels) + panel * lanes, _mm512_div_ps(largest, most));
    const __mmask16 some = _mm512_cmp_ps_mask(largest, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512 per_unit = _mm512_maskz_div_ps(some, most, largest);
    float* to = packed + panel * panel_size(panels.depth);
    for (size_t k = 0; k < panels.depth; k += 2, to += lanes) {
        const __m512i even = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(column + k * lanes), per_unit));
        __m512i odd = _mm512_setzero_si512();
        if (k + 1 < panels.depth)
            odd = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(column + (k + 1) * lanes), per_unit));
        _mm512_storeu_si512(to, _mm512_mask_mov_epi16(_mm512_slli_epi32(odd, 16), 0x55555555, even));
    }
}

AVX512 void project(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
                    size_t stride) {
    thread_local std::vector<int16_t, tbb::cache_aligned_allocator<int16_t>> left;
    thread_local std::vector<float> units;
    const size_t depth = round_up(panels.depth, 2), columns = count * lanes;
    left.resize(rows * depth + lanes);
    units.resize(rows);
    for (size_t i = 0; i < rows; ++i)
        units[i] = row_in_12_bits(state + i * panels.depth, panels.depth, left.data() + i * depth);
    const auto* right = reinterpret_cast<const int16_t*>(panels.packed + first * panel_size(panels.depth));
    const float* of_columns = panels.packed + units_at(panels) + first * lanes;
    multiply_12_bits(left.data(), rows, depth, right, columns, of_columns, to, stride);
    for (size_t i = 0; i < rows; ++i)
        for (size_t w = 0; w < columns; w += lanes) {
            float* at = to + i * stride + w;
            _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), _mm512_set1_ps(units[i])));
        }
}

}  // namespace

const ScorerKernels scorer_avx512_vnni{packed_size, pack, project, features_avx2, look_around_avx2};

}  // namespace dynamic_tinybert
