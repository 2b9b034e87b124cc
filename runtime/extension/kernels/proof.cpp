// Before a set of kernels is used, it is compared with the scalar kernels on this CPU.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/kernels.hpp"
#include "kernels/scalar.hpp"

namespace dynamic_tinybert {
namespace {

/// Pseudo-random numbers, the same in every process.
struct Numbers {
    uint32_t state = 1;

    uint32_t next() { return (state = state * 1664525u + 1013904223u) >> 8; }
    int8_t weight() { return static_cast<int8_t>(next() % 255 - 127); }
    float one() { return static_cast<float>(next() % 4001) / 2000.0f - 1.0f; }
};

template <typename T, typename Make>
Aligned<T> made(size_t count, const Make& make) {
    Aligned<T> numbers(count);
    for (T& number : numbers)
        number = static_cast<T>(make());
    return numbers;
}

bool is_close(const Aligned<float>& a, const Aligned<float>& b, float tolerance) {
    for (size_t i = 0; i < a.size(); ++i)
        if (!(std::fabs(a[i] - b[i]) <= tolerance))
            return false;
    return true;
}

/// Results of one product: its sums as floats, which hold them exactly, and 8-bit numbers after GELU.
struct Products {
    Aligned<float> sums;
    Aligned<uint8_t> quantized;
};

Products products_by(const LinearKernels& kernels) {
    constexpr size_t rows = 23, width = 37, depth = 76;  // enough for tiles, and no multiple of their sizes
    Numbers numbers;
    const auto weights = made<int8_t>(width * depth, [&] { return numbers.weight(); });
    const auto from = made<float>(rows * depth, [&] { return numbers.one(); });
    const Aligned<float> ones(std::max(width, depth), 1.0f), zeros(width, 0.0f), inv_scale(depth, 127.0f);
    Aligned<uint8_t> input(rows * depth);
    kernels.quantize_rows(from.data(), inv_scale.data(), 128.0f, rows, depth, input.data());
    std::fill_n(input.data(), depth, uint8_t{255});  // the largest input: not even this may saturate
    Aligned<int8_t> packed(kernels.packed_size(weights.data(), width, depth));
    kernels.pack(weights.data(), width, depth, packed.data());

    Linear linear{packed.data(), ones.data(), zeros.data(), nullptr, 0.0f, depth, width};
    Products found{Aligned<float>(rows * width), Aligned<uint8_t>(rows * width)};
    kernels.multiply_panel(linear, input.data(), rows, 0, found.sums.data(), nullptr);
    const Aligned<float> scale(width, 1e-5f), inner_inv_scale(width, 30.0f);
    linear.scale = scale.data();
    linear.inv_scale = inner_inv_scale.data();
    linear.zero_point = 6.0f;
    kernels.multiply_panel(linear, input.data(), rows, 0, nullptr, found.quantized.data());
    return found;
}

bool multiplies_right(const LinearKernels& kernels) {
    const Products found = products_by(kernels), expected = products_by(linear_int8_scalar);
    for (size_t i = 0; i < found.quantized.size(); ++i)
        if (std::abs(found.quantized[i] - expected.quantized[i]) > 1)  // GELU is a polynomial that rounds differently
            return false;
    return found.sums == expected.sums;
}

Aligned<float> attention_by(const AttentionKernels& kernels) {
    constexpr size_t tokens = 19, dim = 20;
    Numbers numbers;
    const auto projections = made<float>(tokens * 3 * dim, [&] { return numbers.one(); });
    Aligned<float> found(tokens * dim + tokens + column_padding);
    int32_t positions[tokens];
    for (size_t i = 0; i < tokens; ++i)
        positions[i] = static_cast<int32_t>(i);
    Head head{};
    head.query = projections.data();
    head.key = head.query + dim;
    head.value = head.key + dim;
    head.stride = head.query_stride = 3 * dim;
    head.context = found.data();
    head.context_stride = head.dim = dim;
    head.tokens = positions;
    head.num_tokens = tokens;
    Aligned<float> packed(kernels.packed_size(tokens, dim));
    kernels.pack(head, packed.data());
    kernels.attend(head, packed.data(), 0, tokens, found.data() + tokens * dim);
    found.resize(tokens * dim + tokens);
    return found;
}

/// Features of a scorer after one neighbourhood.
Aligned<float> scores_by(const ScorerKernels& kernels) {
    constexpr size_t tokens = 9, depth = 21, width = 16, heads = 2, head_size = 8, keys = 16, size = 3;
    Numbers numbers;
    const auto one = [&] { return numbers.one(); };
    const auto columns = made<float>(2 * depth * scorer_columns, one), state = made<float>(tokens * depth, one);
    Aligned<float> packed(kernels.packed_size(depth, 2));
    const ScorerPanels panels{columns.data(), packed.data(), depth, 2};
    for (size_t panel = 0; panel < 2; ++panel)
        kernels.pack(panels, panel, packed.data());
    Aligned<float> projected(tokens * 2 * width), features(tokens * width), found(tokens * width);
    kernels.project(panels, 0, 2, state.data(), tokens, projected.data(), 2 * width);

    const auto bias = made<float>(width, one), question_keys = made<float>(heads * keys * head_size, one);
    const auto mix = made<float>(heads * width, one), kernel = made<float>(size * width, one);
    const auto square = made<float>(width * width, one);
    const FirstLayer first{bias.data(), question_keys.data(), mix.data(), keys, heads, head_size, 2 * width};
    kernels.features(first, projected.data(), tokens, width, features.data());
    const Neighbourhood around{kernel.data(), bias.data(), square.data(), bias.data(), size};
    kernels.convolve_mix(around, features.data(), tokens, width, 0, tokens, found.data());
    return found;
}

Aligned<float> rest_by(const Kernels& kernels) {
    constexpr size_t width = 27;
    Numbers numbers;
    const auto one = [&] { return numbers.one(); };
    const auto word = made<int8_t>(width, [&] { return numbers.weight(); });
    const auto added = made<float>(width, one), gamma = made<float>(width, one), head = made<float>(2 * width + 2, one);
    Aligned<float> found(width + 2);
    kernels.add_word(word.data(), 0.02f, added.data(), width, found.data());
    const Normalization normalization{gamma.data(), added.data(), 1e-12f, width};
    kernels.add_and_normalize(normalization, found.data(), added.data(), 1, found.data());
    kernels.float_linear(found.data(), head.data(), 1, width, 2, found.data() + width, 2);
    return found;
}

/// For tests: whether the environment names this instruction set as one whose comparison must fail.
bool is_to_fail(const char* isa) {
    const char* names = std::getenv("DYNAMIC_TINYBERT_TEST_WRONG_ISAS");
    std::istringstream separate(names ? names : "");
    for (std::string name; std::getline(separate, name, ',');)
        if (name == isa)
            return true;
    return false;
}

bool compare(const Kernels& kernels) {
    constexpr float tolerance = 1e-3f;  // for numbers near 1; numbers halfway between integers may round either way
    return !is_to_fail(kernels.isa) && multiplies_right(*kernels.linear_int8) &&
           is_close(attention_by(*kernels.attention_f32), attention_by(attention_f32_scalar), tolerance) &&
           is_close(attention_by(*kernels.attention_int16), attention_by(attention_int16_scalar), tolerance) &&
           is_close(scores_by(*kernels.scorer_f32), scores_by(scorer_f32_scalar), 0.01f) &&
           is_close(scores_by(*kernels.scorer_int12), scores_by(scorer_int12_scalar), 0.01f) &&
           is_close(rest_by(kernels), rest_by(kernels_scalar), tolerance);
}

}  // namespace

bool computes_right(const Kernels& kernels) {
    if (&kernels == &kernels_scalar)
        return true;
    static std::mutex mutex;
    static std::map<const Kernels*, bool> known;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto [found, is_new] = known.try_emplace(&kernels, false);
    if (is_new)
        found->second = compare(kernels);
    return found->second;
}

}  // namespace dynamic_tinybert
