// Matrix products of integers of up to 16 bits, where each row of the left side has a unit of its own, as has each column
// of the right one: 6 rows by two vectors of sums stay in registers.

namespace dynamic_tinybert {
namespace {

constexpr size_t sixteen = 16 / lanes;   // vectors that hold 16 numbers; tokens and columns are filled up to so many
constexpr size_t strip = 6;              // rows of a product that are held in registers
constexpr float most_12_bits = 2047.0f;  // of a signed number

constexpr size_t round_up(size_t count, size_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

/// Numbers of a row of `size` that are left at `at`.
constexpr size_t left_of(size_t size, size_t at) {
    return size > at ? size - at : 0;
}

/// The unit of a row in which its largest number is 2047, NaN if it holds one; 1 / unit in `per_unit`.
inline float unit_of(const float* row, size_t size, float& per_unit) {
    Floats largest = all(0.0f);
    Flags nan = no_flags();
    for (size_t k = 0; k < size; k += lanes) {
        const Floats x = load_first(row + k, size - k);
        largest = larger(largest, absolute(x));
        nan = either(nan, is_nan(x));
    }
    const float most = any(nan) ? std::numeric_limits<float>::quiet_NaN() : largest_of(largest);
    per_unit = most == 0.0f ? 0.0f : most_12_bits / most;
    return most / most_12_bits;
}

/// 16 numbers of a row in 12 bits, from `at` on; beyond the row's `size`, zeros.
inline __m256i in_12_bits(const float* row, size_t size, size_t at, float per_unit) {
    Ints whole[sixteen];
    for (size_t v = 0; v < sixteen; ++v, at += lanes)
        whole[v] = to_nearest(mul(load_first(row + at, left_of(size, at)), all(per_unit)));
    return to_16_bits(whole);
}

/// A row in 12 bits, filled up to 16; returns its unit.
inline float row_in_12_bits(const float* row, size_t size, int16_t* to) {
    float per_unit;
    const float unit = unit_of(row, size, per_unit);
    for (size_t k = 0; k < size; k += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k), in_12_bits(row, size, k, per_unit));
    return unit;
}

/// Two numbers of a row in each lane.
inline Ints two_of(const int16_t* row) {
    int32_t both;
    __builtin_memcpy(&both, row, sizeof both);
    return all_ints(both);
}

/// The right side of a product: vectors of columns, two numbers of each side by side.
struct Columns {
    const int16_t* first;
    size_t step;         ///< Numbers from one pair of rows to the next.
    size_t next;         ///< Numbers from one vector of columns to the next.
    const float* units;  ///< Of each column.
};

/// to[rows, vectors] = left[rows, 2 * pairs] * right, in the units of the columns, times `factors` of the rows if there
/// are any.
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
            const Floats units = load(right.units + v * lanes);
            store(to + i * stride + v * lanes,
                  mul(to_floats(sum[i][v]), factors ? mul(units, all(factors[i])) : units));
        }
}

using Multiply16Bits = void (*)(const int16_t*, size_t, size_t, const Columns&, const float*, float*, size_t);

/// By rows of the strip and vectors, one less.
constexpr Multiply16Bits multiply_strips_16_bits[strip][2] = {
    {multiply_16_bits<1, 1>, multiply_16_bits<1, 2>}, {multiply_16_bits<2, 1>, multiply_16_bits<2, 2>},
    {multiply_16_bits<3, 1>, multiply_16_bits<3, 2>}, {multiply_16_bits<4, 1>, multiply_16_bits<4, 2>},
    {multiply_16_bits<5, 1>, multiply_16_bits<5, 2>}, {multiply_16_bits<6, 1>, multiply_16_bits<6, 2>}};

/// The same for any number of rows, and of columns, a multiple of 16.
inline void multiply_16_bits(const int16_t* left, size_t left_stride, size_t rows, size_t pairs, const Columns& right,
                             size_t columns, const float* factors, float* to, size_t stride) {
    for (size_t column = 0; column < columns; column += 2 * lanes) {
        const Columns some{right.first + column / lanes * right.next, right.step, right.next, right.units + column};
        for (size_t i = 0; i < rows; i += strip)
            multiply_strips_16_bits[std::min(strip, rows - i) - 1][column + lanes < columns](
                left + i * left_stride, left_stride, pairs, some, factors ? factors + i : nullptr,
                to + i * stride + column, stride);
    }
}

/// Columns in panels of a vector each, [depth / 2, lanes, 2]; `depth` is even.
inline Columns in_panels(const int16_t* panels, size_t depth, const float* units) {
    return {panels, 2 * lanes, depth * lanes, units};
}

/// The unit of the largest number of each column, `most` of them; and how many units are in 1, 0 where there are none.
inline Floats units_of(Floats largest, float most, Floats& per_unit) {
    per_unit = where(is_not_zero(largest), div(all(most), largest));
    return div(largest, all(most));
}

}  // namespace
}  // namespace dynamic_tinybert
