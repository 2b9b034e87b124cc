// Scorers. In integers the scalar projections are compared with those in floats, of numbers that already are whole
// multiples of the scales of their row or column.

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"
#include "kernels/scalar.hpp"

namespace dynamic_tinybert {
namespace {

constexpr float most_12_bits = 2047.0f;

void round_to(float most, float* numbers, size_t count, size_t stride) {
    float largest = 0.0f;
    for (size_t k = 0; k < count; ++k)
        largest = std::max(largest, std::abs(numbers[k * stride]));
    for (size_t k = 0; largest != 0.0f && k < count; ++k)
        numbers[k * stride] = static_cast<float>(static_cast<double>(std::nearbyint(numbers[k * stride] * (most / largest))) *
                                                 largest / static_cast<double>(most));
}

void project(const ScorerKernels& kernels, const Guarded<float>& columns, const Guarded<float>& state, size_t rows,
             size_t depth, size_t count, Guarded<float>& to) {
    Guarded<float> packed(kernels.packed_size(depth, count));
    const ScorerPanels panels{columns.data(), packed.data(), depth, count};
    for (size_t panel = 0; panel < count; ++panel)
        kernels.pack(panels, panel, packed.data());
    const size_t first = count > 2, projected = count - first;
    kernels.project(panels, first, projected, state.data(), rows, to.data(), projected * scorer_columns + 3);
}

void check_projecting(const ScorerKernels& kernels, const ScorerKernels* alike, bool in_integers, size_t rows, size_t depth, size_t count,
                      bool extremes, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 1009 + depth * 31 + count));
    Guarded<float> columns = random.normals(count * depth * scorer_columns), state = random.normals(rows * depth);
    if (extremes)
        for (Guarded<float>* numbers : {&columns, &state})
            for (size_t k = 0; k < numbers->size(); ++k)
                (*numbers)[k] = (*numbers)[k] < -1.0f ? -0.5f : 0.5f;
    for (size_t k = 0; k < depth; ++k) {  // a column and a row of zeros
        columns[k * scorer_columns + 5] = 0.0f;
        state[(rows - 1) * depth + k] = rows > 1 ? 0.0f : state[(rows - 1) * depth + k];
    }
    checks.begin("projection%s of %zu rows, depth %zu, %zu panels%s", in_integers ? " in integers" : "", rows, depth,
                 count, extremes ? ", extremes" : "");

    const size_t stride = (count - (count > 2)) * scorer_columns + 3;
    Guarded<float> got(rows * stride - 3, -1.0f), expected(rows * stride - 3, -1.0f);
    project(kernels, columns, state, rows, depth, count, got);
    if (alike) {
        project(*alike, columns, state, rows, depth, count, expected);
        checks.alike(got, expected);
    }
    const bool scalar = &kernels == &scorer_int12_scalar;
    if (scalar) {
        for (size_t i = 0; i < rows; ++i)
            round_to(most_12_bits, state.data() + i * depth, depth, 1);
        for (size_t j = 0; j < count * scorer_columns; ++j)
            round_to(most_of_column(depth), columns.data() + j / scorer_columns * depth * scorer_columns + j % scorer_columns,
                     depth, scorer_columns);
    }
    project(in_integers && !scalar ? scorer_int12_scalar : scorer_f32_scalar, columns, state, rows, depth, count, expected);
    checks.close(got, expected, 3e-6f * std::sqrt(static_cast<float>(depth)), 3e-6f);
}

void check_features(const ScorerKernels& kernels, size_t rows, size_t width, size_t heads, size_t head_size,
                    size_t num_keys, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 1013 + width + heads + num_keys));
    const size_t stride = width + heads * head_size;
    const Guarded<float> projected = random.normals(rows * stride), bias = random.normals(width);
    const Guarded<float> question_keys = random.normals(heads * num_keys * head_size), mix = random.normals(heads * width);
    const FirstLayer first{bias.data(), question_keys.data(), mix.data(), num_keys, heads, head_size, stride};
    Guarded<float> got(rows * width), expected(rows * width);
    checks.begin("features of %zu rows of %zu, %zu heads of %zu, %zu question tokens", rows, width, heads, head_size, num_keys);
    kernels.features(first, projected.data(), rows, width, got.data());
    scorer_f32_scalar.features(first, projected.data(), rows, width, expected.data());
    checks.close(got, expected, 5e-5f, 5e-6f);
}

void check_neighbours(const ScorerKernels& kernels, size_t length, size_t width, size_t size, size_t first, size_t last,
                      Checks& checks) {
    Random random(static_cast<uint32_t>(length * 1019 + width + size));
    const Guarded<float> features = random.normals(length * width), kernel = random.normals(size * width);
    const Guarded<float> bias = random.normals(width), mix = random.normals(width * width, 0.2f);
    const Guarded<float> mix_bias = random.normals(width);
    const Neighbourhood neighbourhood{kernel.data(), bias.data(), mix.data(), mix_bias.data(), size};
    Guarded<float> got(length * width, -1.0f), expected(length * width, -1.0f);
    checks.begin("neighbours %zu to %zu of %zu, width %zu, %zu seen", first, last, length, width, size);
    kernels.convolve_mix(neighbourhood, features.data(), length, width, first, last, got.data());
    scorer_f32_scalar.convolve_mix(neighbourhood, features.data(), length, width, first, last, expected.data());
    checks.close(got, expected, 5e-5f, 5e-6f);
}

}  // namespace

void check_scorer(const ScorerKernels& kernels, const ScorerKernels* alike, bool in_integers, Checks& checks) {
    size_t turn = 0;
    constexpr size_t panel_counts[] = {1, 2, 3, 5};
    for (size_t depth : {1, 2, 3, 8, 15, 16, 17, 31, 32, 64, 100})
        for (size_t rows : {1, 2, 3, 4, 5, 6, 7, 13})
            check_projecting(kernels, alike, in_integers, rows, depth, panel_counts[turn++ % 4], rows == 4, checks);
    for (bool extremes : {false, true})  // in integers of less than 12 bits from 513 on
        check_projecting(kernels, alike, in_integers, 7, 768, 2, extremes, checks);
    for (size_t rows : {1, 5, 6, 13})
        for (size_t width : {16, 32, 48})
            for (size_t num_keys : {0, 16, 32}) {
                ++turn;
                check_features(kernels, rows, width, 1 + turn % 4, 1 + turn % 17, num_keys, checks);
            }
    for (size_t size : {1, 3, 9})
        for (size_t length : {1, 2, 5, 12}) {
            check_neighbours(kernels, length, 16, size, 0, length, checks);
            check_neighbours(kernels, length, 32, size, length / 3, length - length / 4, checks);
        }
}

}  // namespace dynamic_tinybert
