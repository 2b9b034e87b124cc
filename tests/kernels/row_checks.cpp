// What works on single rows: residual and LayerNorm, linear layers in f32, embeddings.

#include <cmath>

#include "checks.hpp"
#include "kernels/scalar.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t widths[] = {1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 384};

void check_normalizing(const Kernels& kernels, size_t rows, size_t width, float offset, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 101 + width));
    Guarded<float> a = random.normals(rows * width);
    const Guarded<float> b = random.normals(rows * width, 2.0f);
    const Guarded<float> gamma = random.uniforms(width, -1.5f, 1.5f), beta = random.normals(width);
    for (size_t k = 0; k < a.size(); ++k)
        a[k] += offset;
    const Normalization normalization{gamma.data(), beta.data(), 1e-5f, width};
    Guarded<float> got(rows * width), expected(rows * width);
    checks.begin("residual and LayerNorm of %zu rows of %zu around %g", rows, width, static_cast<double>(offset));
    kernels.add_and_normalize(normalization, a.data(), b.data(), rows, got.data());
    add_and_normalize_scalar(normalization, a.data(), b.data(), rows, expected.data());
    const float error_of_mean = std::abs(offset) * 4e-6f;  // a float's digits that the mean takes
    checks.close(got, expected, 2e-5f + error_of_mean, 1e-5f);
    kernels.add_and_normalize(normalization, a.data(), b.data(), rows, a.data());
    checks.equal(a, got);  // in place
}

void check_float_linear(const Kernels& kernels, size_t rows, size_t width, size_t columns, Checks& checks) {
    Random random(static_cast<uint32_t>(rows * 103 + width * 7 + columns));
    const Guarded<float> state = random.normals(rows * width), layer = random.normals(columns * (width + 1));
    Guarded<float> got(columns * rows), expected(columns * rows);
    checks.begin("linear layer of %zu rows of %zu with %zu columns", rows, width, columns);
    kernels.float_linear(state.data(), layer.data(), rows, width, columns, got.data(), columns);
    float_linear_scalar(state.data(), layer.data(), rows, width, columns, expected.data(), columns);
    checks.close(got, expected, 1e-6f * static_cast<float>(width) + 1e-6f, 1e-6f);
    Guarded<float> apart(columns * rows);  // the same numbers, column by column
    for (size_t column = 0; column < columns; ++column)
        kernels.float_linear(state.data(), layer.data() + column * (width + 1), rows, width, 1, apart.data() + column,
                             columns);
    checks.equal(apart, got);
}

void check_embedding(const Kernels& kernels, size_t width, Checks& checks) {
    Random random(static_cast<uint32_t>(width));
    Guarded<int8_t> word(width);
    for (size_t k = 0; k < width; ++k)
        word[k] = static_cast<int8_t>(random.whole(-128, 127));
    const Guarded<float> added = random.normals(width);
    Guarded<float> got(width), expected(width);
    checks.begin("embedding of %zu", width);
    kernels.add_word(word.data(), 0.0123f, added.data(), width, got.data());
    add_word_scalar(word.data(), 0.0123f, added.data(), width, expected.data());
    checks.close(got, expected, 5e-7f, 1e-6f);
}

}  // namespace

void check_rows(const Kernels& kernels, Checks& checks) {
    for (size_t width : widths) {
        for (size_t rows : {1, 3, 6}) {
            check_normalizing(kernels, rows, width, 0.0f, checks);
            for (size_t columns : {1, 2, 5})
                check_float_linear(kernels, rows, width, columns, checks);
        }
        check_embedding(kernels, width, checks);
    }
    check_normalizing(kernels, 2, 384, 30.0f, checks);
}

}  // namespace dynamic_tinybert
