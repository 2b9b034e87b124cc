// Scorers in f32. Even if the states are projected in integers, the steps after the projection are computed in f32.

namespace dynamic_tinybert {
namespace {

static_assert(scorer_columns == panel_columns_of_f32);

/// NaN stays NaN.
inline Floats relu(Floats x) {
    return larger(all(0.0f), x);
}

/// Nothing is packed: `project_f32` reads the panels as they are.
size_t packed_f32_size(size_t, size_t) {
    return 0;
}

void pack_f32(const ScorerPanels&, size_t, float*) {}

void project_f32(const ScorerPanels& panels, size_t first, size_t count, const float* state, size_t rows, float* to,
                 size_t stride) {
    const float* columns = panels.columns + first * panels.depth * scorer_columns;
    multiply_f32(state, panels.depth, rows, panels.depth, packed_panels(columns, panels.depth), count * scorer_columns, to,
                 stride);
}

/// to[rows, heads]: similarity of each token to the question
void compare_with_question(const FirstLayer& first, const float* tokens, size_t rows, float* to) {
    if (first.num_keys == 0) {
        std::fill_n(to, rows * first.heads, 0.0f);
        return;
    }
    thread_local Aligned<float> products;
    products.resize(rows * first.num_keys);
    for (size_t head = 0; head < first.heads; ++head) {
        const float* question_keys = first.question_keys + head * first.num_keys * first.head_size;
        multiply_f32(tokens + head * first.head_size, first.stride, rows, first.head_size,
                     packed_panels(question_keys, first.head_size), first.num_keys, products.data(), first.num_keys);
        for (size_t i = 0; i < rows; ++i) {
            const float* of_token = products.data() + i * first.num_keys;
            Floats most = load(of_token);
            for (size_t j = lanes; j < first.num_keys; j += lanes)
                most = larger(load(of_token + j), most);
            to[i * first.heads + head] = largest_of(most);
        }
    }
}

void features(const FirstLayer& first, const float* projected, size_t rows, size_t width, float* to) {
    thread_local Aligned<float> similarity;
    similarity.resize(rows * first.heads);
    compare_with_question(first, projected + width, rows, similarity.data());
    multiply_f32(similarity.data(), first.heads, rows, first.heads, {first.mix, scorer_columns, width}, width, to, width);
    for (size_t i = 0; i < rows; ++i)
        for (size_t w = 0; w < width; w += lanes) {
            const Floats sum = add(load(projected + i * first.stride + w), load(first.bias + w));
            float* feature = to + i * width + w;
            store(feature, relu(add(sum, load(feature))));
        }
}

/// The convolution at positions i, i + 1 ..., for the vectors of columns from `w` on. Several positions at once hide
/// the latency of their sums.
template <int positions, int vectors>
inline void convolve(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width, size_t i,
                     size_t w, float* to) {
    const size_t half = neighbourhood.size / 2;
    const auto begin_at = [&](size_t at) { return half > at ? half - at : 0; };
    const auto end_at = [&](size_t at) { return std::min(neighbourhood.size, length + half - at); };
    // The part of the kernel that all of these positions use; at the ends of the sequence some use a little more.
    const size_t begin = begin_at(i), end = end_at(i + positions - 1);
    const float* kernel = neighbourhood.kernel + w;
    const auto row = [&](size_t at, size_t k) { return features + (at + k - half) * width + w; };
    Floats sum[positions][vectors];
    for (int p = 0; p < positions; ++p)
        for (int v = 0; v < vectors; ++v)
            sum[p][v] = load(neighbourhood.bias + w + v * lanes);
    const auto add_alone = [&](int p, size_t from, size_t until) {
        for (size_t k = from; k < until; ++k)
            for (int v = 0; v < vectors; ++v)
                sum[p][v] = mul_add(load(row(i + p, k) + v * lanes), load(kernel + k * width + v * lanes), sum[p][v]);
    };
    for (int p = 0; p < positions; ++p)
        add_alone(p, begin_at(i + p), begin);
    for (size_t k = begin; k < end; ++k) {
        Floats weight[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            weight[v] = load(kernel + k * width + v * lanes);
#pragma GCC unroll 4
        for (int p = 0; p < positions; ++p)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v)
                sum[p][v] = mul_add(load(row(i + p, k) + v * lanes), weight[v], sum[p][v]);
    }
    for (int p = 0; p < positions; ++p) {
        add_alone(p, end, end_at(i + p));
        for (int v = 0; v < vectors; ++v)
            store(to + p * width + w + v * lanes, sum[p][v]);
    }
}

template <int positions>
void convolve(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width, size_t i, float* to) {
    for (size_t w = 0; w < width; w += 2 * lanes)
        if (w + lanes < width)
            convolve<positions, 2>(neighbourhood, features, length, width, i, w, to);
        else
            convolve<positions, 1>(neighbourhood, features, length, width, i, w, to);
}

void convolve_mix(const Neighbourhood& neighbourhood, const float* features, size_t length, size_t width, size_t first,
                 size_t last, float* to) {
    thread_local Aligned<float> around;
    around.resize((last - first) * width);
    size_t i = first;
    for (; i + 4 <= last; i += 4)
        convolve<4>(neighbourhood, features, length, width, i, around.data() + (i - first) * width);
    for (; i < last; ++i)
        convolve<1>(neighbourhood, features, length, width, i, around.data() + (i - first) * width);
    multiply_f32(around.data(), width, last - first, width, {neighbourhood.mix, scorer_columns, width}, width,
                 to + first * width, width);
    for (size_t at = first * width; at < last * width; at += width)
        for (size_t w = 0; w < width; w += lanes) {
            const Floats mixed = add(load(to + at + w), load(neighbourhood.mix_bias + w));
            store(to + at + w, add(load(features + at + w), relu(mixed)));
        }
}

const ScorerKernels scorer_f32{.packed_size = packed_f32_size,
                               .pack = pack_f32,
                               .project = project_f32,
                               .features = features,
                               .convolve_mix = convolve_mix};

}  // namespace
}  // namespace dynamic_tinybert
