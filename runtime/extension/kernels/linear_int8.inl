// Matrix products of 8-bit integers. The sums of a few rows by a few vectors stay in registers, and a part of a panel
// of the weights stays in the first-level cache.

namespace dynamic_tinybert {
namespace {

constexpr size_t part_columns = strip_vectors * lanes;
constexpr size_t cache_line = 64;

static_assert(panel_columns % part_columns == 0);

/// The same four bytes of a row in each lane.
inline Ints four_of(const uint8_t* row) {
    int32_t four;
    __builtin_memcpy(&four, row, sizeof four);
    return all_ints(four);
}

/// x * (1 + erf(x / sqrt(2))) / 2, with an error below 1e-4 up to |x| = 12: a minimax polynomial in x^2 up to |x| =
/// 4.2, beyond which the function is nearly 0 or the identity.
inline Floats gelu(Floats x) {
    constexpr float coefficients[] = {9.84757763e-11f, -9.59127813e-09f, 4.14493817e-07f,
                                      -1.05791045e-05f, 1.79671647e-04f, -2.17291666e-03f,
                                      1.94818761e-02f, -1.32444147e-01f, 7.97669153e-01f};
    const Floats clamped = larger(smaller(x, all(4.2f)), all(-4.2f));
    const Floats square = mul(clamped, clamped);
    Floats sum = all(coefficients[0]);
#pragma GCC unroll 8
    for (size_t k = 1; k < std::size(coefficients); ++k)
        sum = mul_add(sum, square, all(coefficients[k]));
    const Floats half = all(0.5f);
    return mul(x, mul_add(mul(sum, clamped), half, half));
}

void quantize_rows(const float* from, const float* inv_scale, float zero_point, size_t rows, size_t depth,
                   uint8_t* to) {
    const Floats zero = all(zero_point);
    for (size_t row = 0; row < rows; ++row, from += depth, to += depth)
        for (size_t k = 0; k < depth; k += lanes) {
            const Floats factor = load_first(inv_scale + k, depth - k), x = load_first(from + k, depth - k);
            store_in_8_bits(to + k, mul_add(x, factor, zero), depth - k);
        }
}

/// Turns the integer sums of a vector of columns into results: scale, bias and, if quantised, GELU.
struct Finish {
    const Linear& linear;
    size_t column, left;  // left: columns of the result from `column` on
    Floats scale, bias, inv_scale, zero;

    Finish(const Linear& of, size_t at)
        : linear(of), column(at), left(of.width - at), scale(load_first(of.scale + at, left)),
          bias(load_first(of.bias + at, left)),
          inv_scale(of.inv_scale ? load_first(of.inv_scale + at, left) : all(0.0f)), zero(all(of.zero_point)) {}

    void write(Ints sums, size_t row, float* result, uint8_t* quantized) const {
        const Floats y = mul_add(to_floats(sums), scale, bias);
        const size_t at = row * linear.width + column;
        if (linear.inv_scale)
            store_in_8_bits(quantized + at, mul_add(gelu(y), inv_scale, zero), left);
        else
            store_first(result + at, y, left);
    }
};

/// Multiplies `rows` rows by one part of a panel, and prefetches one cache line from `ahead` on per step of the depth
/// into the second-level cache.
template <int rows>
inline void multiply_strip(const Linear& linear, const uint8_t* from, const int8_t* weights, const Remainder& remainder,
                           size_t first, const int8_t* ahead, float* result, uint8_t* quantized) {
    Ints sum[rows][strip_vectors];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (size_t v = 0; v < strip_vectors; ++v)
            sum[i][v] = no_ints();
    for (size_t k = 0; k < linear.depth; k += depth_step) {
        _mm_prefetch(ahead + k / depth_step * cache_line, _MM_HINT_T1);
        Ints column[strip_vectors];
#pragma GCC unroll 4
        for (size_t v = 0; v < strip_vectors; ++v)
            column[v] = load_ints(weights + (k * strip_vectors + v * depth_step) * lanes);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i) {
            const Ints four = four_of(from + i * linear.depth + k);
#pragma GCC unroll 4
            for (size_t v = 0; v < strip_vectors; ++v)
                add_products_of_8_bits(sum[i][v], four, column[v]);
        }
    }
    if constexpr (splits_weights)
#pragma GCC unroll 4
        for (size_t v = 0; v < strip_vectors; ++v) {
            const size_t group = first / lanes + v;
            for (int32_t entry = remainder.begin[group]; entry < remainder.begin[group + 1]; ++entry) {
                const Ints column = load_ints(remainder.weights + entry * lanes * depth_step);
                const uint8_t* fours = from + remainder.depth[entry];
#pragma GCC unroll 8
                for (int i = 0; i < rows; ++i)
                    add_products_of_8_bits(sum[i][v], four_of(fours + i * linear.depth), column);
            }
        }
#pragma GCC unroll 4
    for (size_t v = 0; v < strip_vectors; ++v) {
        const size_t column = first + v * lanes;
        if (column >= linear.width)
            break;
        const Finish finish(linear, column);
#pragma GCC unroll 8
        for (int i = 0; i < rows; ++i)
            finish.write(sum[i][v], i, result, quantized);
    }
}

using MultiplyStrip = void (*)(const Linear&, const uint8_t*, const int8_t*, const Remainder&, size_t, const int8_t*,
                               float*, uint8_t*);

template <size_t... fewer>
constexpr std::array<MultiplyStrip, sizeof...(fewer)> strips_of(std::index_sequence<fewer...>) {
    return {multiply_strip<fewer + 1>...};
}

/// Indexed by the rows of the strip less one.
constexpr auto multiply_strips = strips_of(std::make_index_sequence<strip_rows>());

void multiply_panel(const Linear& linear, const uint8_t* from, size_t rows, size_t panel, float* result,
                    uint8_t* quantized) {
    const size_t size = linear.depth * panel_columns;
    const int8_t *weights = linear.weights + panel * size, *next = weights + size;
    Remainder remainder{};
    if constexpr (splits_weights)
        remainder = remainder_of(linear.weights, linear.width, linear.depth, lanes);
    // While a panel is multiplied, the next one is prefetched, as the same thread will most likely need it.
    size_t ahead = 0;
    const size_t last = std::min((panel + 1) * panel_columns, linear.width);
    for (size_t first = panel * panel_columns; first < last; first += part_columns, weights += part_columns * linear.depth)
        for (size_t row = 0; row < rows; row += strip_rows) {
            const size_t at = row * linear.width;
            multiply_strips[std::min(strip_rows, rows - row) - 1](
                linear, from + row * linear.depth, weights, remainder, first, next + std::min(ahead, size - 1),
                linear.inv_scale ? nullptr : result + at, linear.inv_scale ? quantized + at : nullptr);
            ahead += linear.depth / depth_step * cache_line;
        }
}

size_t packed_weights_size(const int8_t* weights, size_t width, size_t depth) {
    return splits_weights ? split_size(weights, width, depth, lanes) : panels_size(width, depth);
}

void pack_weights(const int8_t* weights, size_t width, size_t depth, int8_t* packed) {
    if (splits_weights)
        pack_split(weights, width, depth, part_columns, lanes, packed);
    else
        pack_panels(weights, width, depth, part_columns, packed);
}

const LinearKernels linear_int8{
    .packed_size = packed_weights_size, .pack = pack_weights, .quantize_rows = quantize_rows, .multiply_panel = multiply_panel};

}  // namespace
}  // namespace dynamic_tinybert
