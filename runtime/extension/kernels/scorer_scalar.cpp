// Reference kernels, written for readability: the faster ones are compared with them, and CPUs that run no other use
// them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/scalar.hpp"
#include "kernels/twelve_bits_scalar.hpp"

namespace dynamic_tinybert {
namespace {

/// NaN stays NaN.
float relu(float x) {
    return x < 0.0f ? 0.0f : x;
}

size_t packed_size(size_t, size_t) {
    return 0;
}

/// Packs nothing: `project` reads the panels as they are.
void pack(const ScorerPanels&, size_t, float*) {}

void project(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
             size_t stride) {
    for (size_t i = 0; i < rows; ++i, state += panels.depth, to += stride)
        for (size_t p = 0; p < count; ++p)
            for (size_t w = 0; w < scorer_columns; ++w) {
                const float* column = panels.columns + (first + p) * panels.depth * scorer_columns + w;
                float sum = 0.0f;
                for (size_t k = 0; k < panels.depth; ++k)
                    sum += state[k] * column[k * scorer_columns];
                to[p * scorer_columns + w] = sum;
            }
}

/// The integers, stored as floats, followed by the scales of the columns.
size_t packed_int12_size(size_t depth, size_t count) {
    return count * (depth + 1) * scorer_columns;
}

void pack_int12(const ScorerPanels& panels, size_t panel, float* packed) {
    const float* column = panels.columns + panel * panels.depth * scorer_columns;
    const float most = most_of_column(panels.depth);
    for (size_t w = 0; w < scorer_columns; ++w, ++column) {
        float largest = 0.0f;
        for (size_t k = 0; k < panels.depth; ++k)
            largest = std::max(largest, std::fabs(column[k * scorer_columns]));
        const float inv_scale = largest == 0.0f ? 0.0f : most / largest;
        float* to = packed + panel * panels.depth * scorer_columns + w;
        for (size_t k = 0; k < panels.depth; ++k)
            to[k * scorer_columns] = std::nearbyint(column[k * scorer_columns] * inv_scale);
        packed[(panels.count * panels.depth + panel) * scorer_columns + w] = largest / most;
    }
}

void project_int12(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
                   size_t stride) {
    const size_t depth = panels.depth;
    std::vector<int32_t> row(depth);
    for (size_t i = 0; i < rows; ++i, state += depth, to += stride) {
        const float row_scale = row_in_12_bits(state, depth, row.data());
        for (size_t p = first; p < first + count; ++p)
            for (size_t w = 0; w < scorer_columns; ++w) {
                int32_t sum = 0;
                for (size_t k = 0; k < depth; ++k)
                    sum += row[k] * static_cast<int32_t>(panels.packed[(p * depth + k) * scorer_columns + w]);
                const float column_scale = panels.packed[(panels.count * depth + p) * scorer_columns + w];
                to[(p - first) * scorer_columns + w] = static_cast<float>(sum) * column_scale * row_scale;
            }
    }
}

/// Similarity of a token to the question in one head.
float similarity(const float* token, size_t head, const FirstLayer& first) {
    float most = first.num_keys ? -std::numeric_limits<float>::infinity() : 0.0f;
    const size_t panel_size = first.head_size * scorer_columns;
    const float* panel = first.question_keys + head * first.num_keys * first.head_size;
    for (size_t j = 0; j < first.num_keys; j += scorer_columns, panel += panel_size)
        for (size_t lane = 0; lane < scorer_columns; ++lane) {
            float sum = 0.0f;
            for (size_t c = 0; c < first.head_size; ++c)
                sum += token[head * first.head_size + c] * panel[c * scorer_columns + lane];
            most = std::max(sum, most);
        }
    return most;
}

void features(const FirstLayer& first, const float* projected, size_t rows, size_t width, float* features) {
    for (size_t i = 0; i < rows; ++i, projected += first.stride, features += width) {
        for (size_t w = 0; w < width; ++w)
            features[w] = projected[w] + first.bias[w];
        for (size_t head = 0; head < first.heads; ++head) {
            const float similar = similarity(projected + width, head, first);
            for (size_t w = 0; w < width; ++w)
                features[w] += similar * first.mix[head * width + w];
        }
        for (size_t w = 0; w < width; ++w)
            features[w] = relu(features[w]);
    }
}

void convolve_mix(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width,
                 size_t first, size_t last, float* to) {
    const size_t half = neighbourhood.size / 2;
    thread_local std::vector<float> around;
    around.resize(width);
    for (size_t i = first; i < last; ++i) {
        around.assign(neighbourhood.bias, neighbourhood.bias + width);
        for (size_t k = 0; k < neighbourhood.size; ++k)
            if (i + k >= half && i + k - half < length)
                for (size_t w = 0; w < width; ++w)
                    around[w] += features[(i + k - half) * width + w] * neighbourhood.kernel[k * width + w];
        for (size_t w = 0; w < width; ++w) {
            float sum = neighbourhood.mix_bias[w];
            for (size_t k = 0; k < width; ++k)
                sum += around[k] * neighbourhood.mix[k * width + w];
            to[i * width + w] = features[i * width + w] + relu(sum);
        }
    }
}

}  // namespace

const ScorerKernels scorer_f32_scalar{
    .packed_size = packed_size, .pack = pack, .project = project, .features = features, .convolve_mix = convolve_mix};

const ScorerKernels scorer_int12_scalar{.packed_size = packed_int12_size,
                                        .pack = pack_int12,
                                        .project = project_int12,
                                        .features = features,
                                        .convolve_mix = convolve_mix};

}  // namespace dynamic_tinybert
