// Products of 8 bits: their sums are the same on every path, to the bit; what is rounded afterwards, within one level.

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"
#include "kernels/scalar.hpp"
#include "plain_tiles.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t row_counts[] = {1, 2, 3, 4, 5, 6, 7, 12, 15, 16, 17, 24, 31, 32, 33, 48, 49};
constexpr size_t depths[] = {4, 8, 12, 60, 64, 68, 124, 128, 132, 384, 516};
constexpr size_t widths[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 128, 130};

/// What the numbers of a product are drawn from. The names of messages, too.
enum class Draw { any, largest, smallest, opposite_pairs, opposite_neighbours, extremes };
constexpr const char* draw_names[] = {"any numbers", "255 * 127", "255 * -128", "pairs of 255 * 127, then of 255 * -128",
                                      "255 * 127 next to 255 * -128", "extremes in any order"};

/// The weight of one place: pairs lie together in depth, as the instructions that saturate add them.
int draw_weight(Draw draw, size_t k, Random& random) {
    switch (draw) {
        case Draw::any:
            return random.whole(-128, 127);
        case Draw::largest:
            return 127;
        case Draw::smallest:
            return -128;
        case Draw::opposite_pairs:
            return k % 4 < 2 ? 127 : -128;
        case Draw::opposite_neighbours:
            return k % 2 ? -128 : 127;
        case Draw::extremes:
            return random.whole(0, 1) ? 127 : -128;
    }
    return 0;
}

int draw_level(Draw draw, Random& random) {
    return draw == Draw::any ? random.whole(0, 255) : draw == Draw::extremes ? 255 * random.whole(0, 3) / 3 : 255;
}

struct Problem {
    size_t rows, depth, width;
    Guarded<uint8_t> levels;
    std::vector<int8_t> weights;  // [width, depth]
    Guarded<float> scale, bias, inv_scale;
    float zero_point = 0.0f;

    Problem(size_t rows_, size_t depth_, size_t width_, Draw draw, Random& random)
        : rows(rows_), depth(depth_), width(width_), levels(rows * depth),
          weights(width * depth), scale(width, 1.0f), bias(width, 0.0f), inv_scale(width, 0.0f) {
        for (size_t k = 0; k < levels.size(); ++k)
            levels[k] = static_cast<uint8_t>(draw_level(draw, random));
        for (size_t column = 0; column < width; ++column)
            for (size_t k = 0; k < depth; ++k)
                weights[column * depth + k] = static_cast<int8_t>(draw_weight(draw, k, random));
    }

    /// Panels backwards, so that a panel that also writes into the next one's columns spoils them.
    void multiply(const LinearKernels& kernels, Guarded<float>* result, Guarded<uint8_t>* quantized) const {
        Guarded<int8_t> packed(kernels.packed_size(weights.data(), width, depth));
        kernels.pack(weights.data(), width, depth, packed.data());
        const Linear linear{packed.data(), scale.data(), bias.data(), quantized ? inv_scale.data() : nullptr,
                            zero_point, depth, width};
        for (size_t panel = panels_of(width); panel-- > 0;)
            kernels.multiply_panel(linear, levels.data(), rows, panel, result ? result->data() : nullptr,
                                   quantized ? quantized->data() : nullptr);
    }

    /// By the definition.
    void define(Guarded<float>& result) const {
        for (size_t row = 0; row < rows; ++row)
            for (size_t column = 0; column < width; ++column) {
                int64_t sum = 0;
                for (size_t k = 0; k < depth; ++k)
                    sum += int64_t{levels[row * depth + k]} * weights[column * depth + k];
                result[row * width + column] = static_cast<float>(sum);
            }
    }
};

/// Scale 1 and bias 0 show the sums themselves: up to depth 516 all of them are exact in a float.
void check_sums(const LinearKernels& kernels, size_t rows, size_t depth, size_t width, Draw draw,
                Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 1000003 + depth * 1009 + width));
    const Problem problem(rows, depth, width, draw, random);
    Guarded<float> got(rows * width, -1.0f), expected(rows * width, -1.0f);
    checks.begin("sums of %zu rows, depth %zu, %zu columns, %s", rows, depth, width,
                 draw_names[static_cast<size_t>(draw)]);
    problem.multiply(kernels, &got, nullptr);
    if (&kernels == &linear_int8_scalar)
        problem.define(expected);
    else
        problem.multiply(linear_int8_scalar, &expected, nullptr);
    checks.equal(got, expected);
}

void check_results(const LinearKernels& kernels, const LinearKernels* alike, size_t rows, size_t depth, size_t width, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 7919 + depth * 31 + width));
    Problem problem(rows, depth, width, Draw::any, random);
    const float step = 0.02f / std::sqrt(static_cast<float>(depth));
    for (size_t j = 0; j < width; ++j) {
        problem.scale[j] = random.uniform(0.3f, 1.0f) * step;
        problem.bias[j] = random.uniform(-2.0f, 2.0f);
        problem.inv_scale[j] = random.uniform(8.0f, 40.0f);
    }
    problem.zero_point = static_cast<float>(random.whole(0, 30));
    Guarded<float> got(rows * width), expected(rows * width);
    checks.begin("results of %zu rows, depth %zu, %zu columns", rows, depth, width);
    problem.multiply(kernels, &got, nullptr);
    problem.multiply(linear_int8_scalar, &expected, nullptr);
    checks.close(got, expected, 1e-5f, 1e-6f);
    if (alike) {
        problem.multiply(*alike, &expected, nullptr);
        checks.alike(got, expected);
    }

    problem.bias[width / 2] = std::numeric_limits<float>::quiet_NaN();
    problem.bias[0] = width > 2 ? 1e9f : problem.bias[0];
    Guarded<uint8_t> levels(rows * width), expected_levels(rows * width);
    checks.begin("quantised GELU of %zu rows, depth %zu, %zu columns", rows, depth, width);
    problem.multiply(kernels, nullptr, &levels);
    problem.multiply(linear_int8_scalar, nullptr, &expected_levels);
    checks.rounded_alike(levels, expected_levels, 0.01);
    if (alike) {
        problem.multiply(*alike, nullptr, &expected_levels);
        checks.alike(levels, expected_levels);
    }
}

/// GELU alone, through a sum of 0: wrong by less than 1e-4, in steps of 1/600.
void check_gelu(const LinearKernels& kernels, const LinearKernels* alike, Checks& checks) {
    constexpr size_t width = 1000;
    Random random(5);
    Problem problem(1, 4, width, Draw::largest, random);
    for (size_t j = 0; j < width; ++j) {
        const float x = static_cast<float>(j) / width * 24.0f - 12.0f;
        problem.scale[j] = 0.0f;
        problem.bias[j] = x;
        problem.inv_scale[j] = x < 0.3f ? 600.0f : 20.0f;
    }
    problem.zero_point = 120.0f;
    Guarded<uint8_t> got(width), expected(width);
    checks.begin("GELU from -12 to 12");
    problem.multiply(kernels, nullptr, &got);
    problem.multiply(linear_int8_scalar, nullptr, &expected);
    checks.rounded_alike(got, expected, 0.06);
    if (alike) {
        problem.multiply(*alike, nullptr, &expected);
        checks.alike(got, expected);
    }
}

void check_quantizing(const LinearKernels& kernels, const LinearKernels* alike, size_t rows, size_t depth, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 17 + depth));
    constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float special[] = {nan, infinity, -infinity, 1e30f, -1e30f, 0.0f, -0.0f, 1e-40f};
    // Halves, which every path rounds to the even number.
    Guarded<float> from(rows * depth), inv_scale(depth);
    Guarded<uint8_t> got(rows * depth), expected(rows * depth);
    for (size_t k = 0; k < from.size(); ++k)
        from[k] = random.whole(0, 9) ? static_cast<float>(random.whole(-160, 400)) : special[random.whole(0, 7)];
    for (size_t k = 0; k < depth; ++k)
        inv_scale[k] = random.whole(0, 1) ? 0.5f : 1.0f;
    checks.begin("quantised halves and extremes, %zu rows, depth %zu", rows, depth);
    kernels.quantize_rows(from.data(), inv_scale.data(), 3.0f, rows, depth, got.data());
    if (&kernels == &linear_int8_scalar)
        for (size_t k = 0; k < from.size(); ++k) {
            const double scaled = static_cast<double>(from[k]) * inv_scale[k % depth] + 3.0;
            expected[k] = scaled > 0.0 ? static_cast<uint8_t>(std::nearbyint(std::min(scaled, 255.0))) : 0;
        }
    else
        linear_int8_scalar.quantize_rows(from.data(), inv_scale.data(), 3.0f, rows, depth, expected.data());
    checks.equal(got, expected);

    const Guarded<float> any = random.normals(rows * depth, 3.0f), factors = random.uniforms(depth, 5.0f, 40.0f);
    checks.begin("quantised rows, %zu rows, depth %zu", rows, depth);
    kernels.quantize_rows(any.data(), factors.data(), 117.0f, rows, depth, got.data());
    linear_int8_scalar.quantize_rows(any.data(), factors.data(), 117.0f, rows, depth, expected.data());
    checks.rounded_alike(got, expected, 0.005);
    if (alike) {
        alike->quantize_rows(any.data(), factors.data(), 117.0f, rows, depth, expected.data());
        checks.alike(got, expected);
    }
}

}  // namespace

void check_linear(const LinearKernels& kernels, const LinearKernels* alike, Checks& checks) {
    size_t turn = 0;
    for (size_t depth : depths) {
        for (size_t rows : row_counts)
            check_sums(kernels, rows, depth, widths[turn++ % std::size(widths)], Draw::any, checks);
        for (size_t width : widths)
            check_sums(kernels, row_counts[turn++ % std::size(row_counts)], depth, width, Draw::extremes, checks);
        for (Draw draw : {Draw::largest, Draw::smallest, Draw::opposite_pairs, Draw::opposite_neighbours})
            for (size_t rows : {1, 6, 19, 33})
                check_sums(kernels, rows, depth, widths[turn++ % std::size(widths)], draw, checks);
    }
    check_sums(kernels, 17, 1536, 70, Draw::opposite_pairs, checks);
    check_sums(kernels, 34, 1536, 70, Draw::any, checks);
    for (size_t rows : {1, 5, 16, 40})
        for (size_t width : {1, 16, 33, 64, 100})
            check_results(kernels, alike, rows, 68, width, checks);
    check_gelu(kernels, alike, checks);
    for (size_t rows : {1, 3})
        for (size_t depth : {1, 4, 7, 8, 12, 15, 16, 20, 31, 32, 36, 64, 68, 384})
            check_quantizing(kernels, alike, rows, depth, checks);
}

void check_plain_tiles(const LinearKernels& kernels, Checks& checks) {
    const size_t before = PlainTiles::products();
    check_linear(kernels, kernels_avx2.linear_int8, checks);
    Guarded<uint8_t> got(2), expected(2, 1);
    got[0] = PlainTiles::products() > before;
    got[1] = PlainTiles::released();
    checks.begin("tiles were used, and released");
    checks.equal(got, expected);
}

}  // namespace dynamic_tinybert
