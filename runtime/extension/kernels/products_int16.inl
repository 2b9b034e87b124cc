// Matrix products of integers of up to 16 bits. Each row of the left side has a scale of its own, and so has each
// column of the right side. The sums of 6 rows by two vectors stay in registers.

namespace dynamic_tinybert {
namespace {

constexpr size_t sixteen = 16 / lanes;   // vectors that hold 16 numbers; tokens and columns are padded to 16
constexpr size_t strip = 6;              // rows whose sums are held in registers
constexpr float most_12_bits = 2047.0f;  // largest signed integer

constexpr size_t round_up(size_t count, size_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

/// Number of elements of a row of `size` from index `at` on.
constexpr size_t left_of(size_t size, size_t at) {
    return size > at ? size - at : 0;
}

/// The scale that maps the largest magnitude of a row to 2047; NaN if the row holds NaN. Sets `inv_scale` to 1 / scale,
/// or to 0 for a row of zeros.
inline float scale_of(const float* row, size_t size, float& inv_scale) {
    Floats largest = all(0.0f);
    Flags nan = no_flags();
    for (size_t k = 0; k < size; k += lanes) {
        const Floats x = load_first(row + k, size - k);
        largest = larger(largest, absolute(x));
        nan = either(nan, is_nan(x));
    }
    const float most = any(nan) ? std::numeric_limits<float>::quiet_NaN() : largest_of(largest);
    inv_scale = most == 0.0f ? 0.0f : most_12_bits / most;
    return most / most_12_bits;
}

/// 16 numbers of a row from index `at` on, quantised to 12 bits; zeros beyond the end of the row.
inline __m256i in_12_bits(const float* row, size_t size, size_t at, float inv_scale) {
    Ints whole[sixteen];
    for (size_t v = 0; v < sixteen; ++v, at += lanes)
        whole[v] = to_nearest(mul(load_first(row + at, left_of(size, at)), all(inv_scale)));
    return to_16_bits(whole);
}

/// Quantises a row to 12 bits, padded to a multiple of 16; returns its scale.
inline float row_in_12_bits(const float* row, size_t size, int16_t* to) {
    float inv_scale;
    const float scale = scale_of(row, size, inv_scale);
    for (size_t k = 0; k < size; k += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), in_12_bits(row, size, k, inv_scale));
    return scale;
}

/// The same two numbers of a row in each lane.
inline Ints two_of(const int16_t* row) {
    int32_t both;
    __builtin_memcpy(&both, row, sizeof both);
    return all_ints(both);
}

/// The right side of a product: vectors of columns, in which two numbers of a column lie side by side.
struct Columns {
    const int16_t* first;
    size_t step;          ///< Numbers from one pair of rows to the next.
    size_t next;          ///< Numbers from one vector of columns to the next.
    const float* scales;  ///< Scale of each column.
};

/// to[rows, vectors] = left[rows, 2 * pairs] * right, times the scales of the columns and, unless null, `factors` of
/// the rows.
template <int rows, int vectors>
inline void multiply_16_bits(const int16_t* left, size_t left_stride, size_t pairs, const Columns& right,
                             const float* factors, float* to, size_t stride) {
    Ints sum[rows][vectors];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            sum[i][v] = no_ints();
    const int16_t* at = right.first;
    for (size_t k = 0; k < pairs; ++k, at += right.step) {
        Ints column[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v)
            column[v] = load_ints(at + v * right.next);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            const Ints two = two_of(left + i * left_stride + 2 * k);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v)
                add_products_of_16_bits(sum[i][v], column[v], two);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
            const Floats scales = load(right.scales + v * lanes);
            store(to + i * stride + v * lanes,
                  mul(to_floats(sum[i][v]), factors ? mul(scales, all(factors[i])) : scales));
        }
}

using Multiply16Bits = void (*)(const int16_t*, size_t, size_t, const Columns&, const float*, float*, size_t);

/// Indexed by the rows of the strip and the vectors, each less one.
constexpr Multiply16Bits multiply_strips_16_bits[strip][2] = {
    {multiply_16_bits<1, 1>, multiply_16_bits<1, 2>}, {multiply_16_bits<2, 1>, multiply_16_bits<2, 2>},
    {multiply_16_bits<3, 1>, multiply_16_bits<3, 2>}, {multiply_16_bits<4, 1>, multiply_16_bits<4, 2>},
    {multiply_16_bits<5, 1>, multiply_16_bits<5, 2>}, {multiply_16_bits<6, 1>, multiply_16_bits<6, 2>}};

/// The same for any number of rows and any multiple of 16 columns.
inline void multiply_16_bits(const int16_t* left, size_t left_stride, size_t rows, size_t pairs, const Columns& right,
                             size_t columns, const float* factors, float* to, size_t stride) {
    for (size_t column = 0; column < columns; column += 2 * lanes) {
        const Columns some{right.first + column / lanes * right.next, right.step, right.next, right.scales + column};
        for (size_t i = 0; i < rows; i += strip)
            multiply_strips_16_bits[std::min(strip, rows - i) - 1][column + lanes < columns](
                left + i * left_stride, left_stride, pairs, some, factors ? factors + i : nullptr,
                to + i * stride + column, stride);
    }
}

/// Columns that lie in panels of one vector, [depth / 2, lanes, 2]; `depth` is even.
inline Columns in_panels(const int16_t* panels, size_t depth, const float* scales) {
    return {panels, 2 * lanes, depth * lanes, scales};
}

/// The scale that maps the largest magnitude of each column to `most`. Sets `inv_scale` to 1 / scale, or to 0 for a
/// column of zeros.
inline Floats scales_of(Floats largest, float most, Floats& inv_scale) {
    inv_scale = where(is_not_zero(largest), div(all(most), largest));
    return div(largest, all(most));
}

}  // namespace
}  // namespace dynamic_tinybert
