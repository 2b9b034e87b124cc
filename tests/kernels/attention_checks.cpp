// Attention. In integers the scalar kernels are compared with those in floats, on numbers that already are whole multiples
// of the scales that they have: so what is left of the difference is the rounding of the probabilities.

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.hpp"
#include "kernels/scalar.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t token_counts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 47, 48, 49, 97};
constexpr size_t dims[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 64, 66};
constexpr float most_of_queries = 2047.0f, most_of_values = 32767.0f;

/// Rounds numbers that lie `stride` apart to whole multiples of the largest one, divided by `most`.
void round_to(float most, float* numbers, size_t count, size_t stride) {
    float largest = 0.0f;
    for (size_t k = 0; k < count; ++k)
        largest = std::max(largest, std::abs(numbers[k * stride]));
    if (largest == 0.0f)
        return;
    for (size_t k = 0; k < count; ++k) {
        const float whole = std::nearbyint(numbers[k * stride] * (most / largest));
        numbers[k * stride] = static_cast<float>(static_cast<double>(whole) * largest / static_cast<double>(most));
    }
}

/// Two heads side by side in rows of query, key and value; some of the rows are padding.
struct Problem {
    size_t num_tokens, dim, length, width;
    std::vector<int32_t> tokens;
    std::vector<float> projections;  // [length, 3, heads, dim]

    Problem(size_t num_tokens_, size_t dim_, bool padding, Random& random)
        : num_tokens(num_tokens_), dim(dim_), length(0), width(2 * dim) {
        while (tokens.size() < num_tokens) {
            if (!padding || random.whole(0, 3))
                tokens.push_back(static_cast<int32_t>(length));
            ++length;
        }
        projections.resize(length * 3 * width);
        for (float& x : projections)
            x = random.normal();
    }

    float* row(size_t token, size_t which, size_t head) {
        return projections.data() + (static_cast<size_t>(tokens[token]) * 3 + which) * width + head * dim;
    }

    void round_as_integers_do() {
        for (size_t head = 0; head < 2; ++head) {
            for (size_t i = 0; i < num_tokens; ++i)
                for (size_t which : {0, 1})
                    round_to(most_of_queries, row(i, which, head), dim, 1);
            std::vector<float> column(num_tokens);
            for (size_t k = 0; k < dim; ++k) {
                for (size_t i = 0; i < num_tokens; ++i)
                    column[i] = row(i, 2, head)[k];
                round_to(most_of_values, column.data(), num_tokens, 1);
                for (size_t i = 0; i < num_tokens; ++i)
                    row(i, 2, head)[k] = column[i];
            }
        }
    }
};

struct Result {
    Guarded<float> context;
    Guarded<uint8_t> quantized;
    Guarded<float> column_sums;  // [heads, tokens], of all blocks together

    explicit Result(const Problem& problem)
        : context(problem.length * problem.width), quantized(problem.length * problem.width),
          column_sums(2 * problem.num_tokens) {}
};

void attend(const AttentionKernels& kernels, const Problem& problem, Result& result) {
    const Guarded<float> projections(problem.projections);
    const Guarded<int32_t> tokens(problem.tokens);
    for (size_t h = 0; h < 2; ++h)
        for (bool quantizes : {false, true}) {
            Head head{};
            head.query = projections.data() + h * problem.dim;
            head.key = head.query + problem.width;
            head.value = head.key + problem.width;
            head.stride = head.query_stride = 3 * problem.width;
            head.context = quantizes ? nullptr : result.context.data() + h * problem.dim;
            head.quantized = quantizes ? result.quantized.data() + h * problem.dim : nullptr;
            head.context_stride = problem.width;
            head.inv_scale = 50.0f;
            head.zero_point = 120.0f;
            head.dim = problem.dim;
            head.tokens = tokens.data();
            head.num_tokens = problem.num_tokens;
            Guarded<float> packed(kernels.packed_size(problem.num_tokens, problem.dim));
            kernels.pack(head, packed.data());
            for (size_t first = 0; first < problem.num_tokens; first += query_block) {
                const size_t last = std::min(first + query_block, problem.num_tokens);
                Guarded<float> sums(problem.num_tokens + column_padding);
                kernels.attend(head, packed.data(), first, last, quantizes ? nullptr : sums.data());
                for (size_t j = 0; j < problem.num_tokens && !quantizes; ++j)
                    result.column_sums[h * problem.num_tokens + j] += sums[j];
            }
        }
}

/// What may be wrong by rounding to 16 bits the probabilities that many values of this size are mixed by: at random to
/// either side, six deviations; at worst all to the same side.
float error_of_rounding(size_t count, float size, bool at_worst) {
    const float share = at_worst ? 0.5f * static_cast<float>(count) : 6.0f * std::sqrt(static_cast<float>(count) / 12.0f);
    return share / most_of_values * size;
}

struct Path {
    const AttentionKernels& kernels;
    const AttentionKernels* alike;
    bool in_integers;

    const char* name() const { return in_integers ? "attention in integers" : "attention"; }
};

/// Context and sums, values being of that size.
void compare(const Path& path, Problem& problem, float size, bool at_worst, Checks& checks) {
    Result got(problem), expected(problem);
    attend(path.kernels, problem, got);
    if (path.alike) {
        Result same(problem);
        attend(*path.alike, problem, same);
        checks.alike(got.context, same.context);
        checks.alike(got.column_sums, same.column_sums);
        checks.alike(got.quantized, same.quantized);
    }
    const bool scalar = &path.kernels == &attention_int16_scalar;
    if (scalar)
        problem.round_as_integers_do();
    attend(path.in_integers && !scalar ? attention_int16_scalar : attention_f32_scalar, problem, expected);
    checks.close(got.context, expected.context,
                 1e-5f + (path.in_integers ? error_of_rounding(problem.num_tokens, size, at_worst) : 0.0f));
    checks.close(got.column_sums, expected.column_sums, 2e-6f, 2e-5f);
    checks.rounded_alike(got.quantized, expected.quantized, 0.03);
}

void check_random(const Path& path, size_t num_tokens, size_t dim, Checks& checks) {
    Random random(static_cast<uint32_t>(num_tokens * 1009 + dim));
    const bool padding = num_tokens % 2;
    Problem problem(num_tokens, dim, padding, random);
    checks.begin("%s of %zu tokens, dim %zu%s", path.name(), num_tokens, dim,
                 padding ? ", with padding" : "");
    compare(path, problem, 1.0f, false, checks);
}

/// The largest integers that there are, of either sign: sums that are nearly too large for 32 bits, or for pairs of 16.
void check_extremes(const Path& path, size_t dim, bool one_sign, Checks& checks) {
    Random random(static_cast<uint32_t>(dim));
    Problem problem(34, dim, false, random);
    for (float& x : problem.projections)
        x = one_sign || random.whole(0, 1) ? 0.27f : -0.27f;
    checks.begin("%s of extremes %s, dim %zu", path.name(),
                 one_sign ? "of one sign" : "of both signs", dim);
    compare(path, problem, 0.27f, true, checks);
}

/// Scores so far apart that each token sees one other; and a token that is all zeros.
void check_one_hot(const Path& path, Checks& checks) {
    Random random(3);
    Problem problem(19, 20, true, random);
    for (size_t i = 0; i < problem.num_tokens; ++i)
        for (size_t which : {0, 1})
            for (size_t k = 0; k < problem.dim; ++k)
                problem.row(i, which, 0)[k] = k == i ? 60.0f : 0.0f;
    std::fill_n(problem.row(4, 0, 1), problem.dim, 0.0f);
    std::fill_n(problem.row(5, 1, 1), problem.dim, 0.0f);
    checks.begin("%s to one token alone", path.name());
    compare(path, problem, 1.0f, false, checks);
}

/// NaN in a query spoils its own row, NaN in a key all of its head, NaN in a value its column: never hidden.
void check_nan(const Path& path, size_t which, Checks& checks) {
    Random random(4);
    Problem problem(21, 24, false, random);
    problem.row(7, which, 0)[3] = std::numeric_limits<float>::quiet_NaN();
    Result got(problem);
    attend(path.kernels, problem, got);
    Guarded<float> is_nan(got.context.size()), expected(got.context.size());
    for (size_t k = 0; k < is_nan.size(); ++k)
        is_nan[k] = std::isnan(got.context[k]);
    for (size_t i = 0; i < problem.num_tokens; ++i)
        for (size_t k = 0; k < problem.dim; ++k)
            expected[i * problem.width + k] = which == 0 ? i == 7 : which == 1 || k == 3;
    checks.begin("%s with NaN in %s", path.name(), which == 0 ? "a query" : which == 1 ? "a key" : "a value");
    checks.equal(is_nan, expected);
}

}  // namespace

void check_attention(const AttentionKernels& kernels, const AttentionKernels* alike, bool in_integers, Checks& checks) {
    const Path path{kernels, alike, in_integers};
    size_t turn = 0;
    for (size_t num_tokens : token_counts)
        for (int k = 0; k < 3; ++k)
            check_random(path, num_tokens, dims[turn++ % std::size(dims)], checks);
    check_random(path, 171, 32, checks);
    for (size_t dim : {16, 33, 512})
        for (bool one_sign : {false, true})
            check_extremes(path, dim, one_sign, checks);
    check_one_hot(path, checks);
    for (size_t which : {0, 1, 2})
        check_nan(path, which, checks);
}

}  // namespace dynamic_tinybert
