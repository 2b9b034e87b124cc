// Matrix products in f32 whose right side lies in panels of 16 columns. The sums of 6 rows by two vectors stay in
// registers.

namespace dynamic_tinybert {
namespace {

constexpr size_t panel_columns_of_f32 = 16;

/// The right side of a product.
struct Panels {
    const float* first;
    size_t step;    ///< Floats from one panel to the next.
    size_t stride;  ///< Floats from one row of a panel to the next.
};

/// Panels [depth, 16] that lie one behind the other.
inline Panels packed_panels(const float* first, size_t depth) {
    return {first, depth * panel_columns_of_f32, panel_columns_of_f32};
}

/// to[rows, vectors] = left[rows, depth] * right, whose vectors lie `next` floats apart.
template <int rows, int vectors>
inline void multiply_f32(const float* left, size_t left_stride, size_t depth, const float* right, size_t right_stride,
                         size_t next, float* to, size_t stride) {
    Floats sum[rows][vectors];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            sum[i][v] = all(0.0f);
    for (size_t k = 0; k < depth; ++k, right += right_stride) {
        Floats column[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            column[v] = load(right + v * next);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            const Floats factor = all(left[i * left_stride + k]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v)
                sum[i][v] = mul_add(factor, column[v], sum[i][v]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            store(to + i * stride + v * lanes, sum[i][v]);
}

using MultiplyF32 = void (*)(const float*, size_t, size_t, const float*, size_t, size_t, float*, size_t);

/// Indexed by the rows of the strip and the vectors, each less one.
constexpr MultiplyF32 multiply_strips_f32[strip][2] = {
    {multiply_f32<1, 1>, multiply_f32<1, 2>}, {multiply_f32<2, 1>, multiply_f32<2, 2>},
    {multiply_f32<3, 1>, multiply_f32<3, 2>}, {multiply_f32<4, 1>, multiply_f32<4, 2>},
    {multiply_f32<5, 1>, multiply_f32<5, 2>}, {multiply_f32<6, 1>, multiply_f32<6, 2>}};

/// The same for any number of rows and any multiple of 16 columns.
inline void multiply_f32(const float* left, size_t left_stride, size_t rows, size_t depth, const Panels& right,
                         size_t columns, float* to, size_t stride) {
    const size_t next = lanes == panel_columns_of_f32 ? right.step : lanes;
    for (size_t column = 0; column < columns; column += 2 * lanes) {
        const float* panel = right.first + column / panel_columns_of_f32 * right.step;
        for (size_t i = 0; i < rows; i += strip)
            multiply_strips_f32[std::min(strip, rows - i) - 1][column + lanes < columns](
                left + i * left_stride, left_stride, depth, panel, right.stride, next, to + i * stride + column, stride);
    }
}

}  // namespace
}  // namespace dynamic_tinybert
