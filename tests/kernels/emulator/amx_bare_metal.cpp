// Products of 8 bits by the tiles of the CPU, without an operating system: the kernel of AMX as the extension has it,
// against a loop. Bochs up to 3.1 takes the signed bytes of AMX as unsigned: so weights of 0 ... 127 must give what the loop
// gives, and any others either that or what the loop gives of their bytes as unsigned numbers.

#include "kernels/vector_kernels.hpp"
#include "kernels/tiles.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

#include "kernels/vectors_512.inl"

namespace dynamic_tinybert {
namespace {

inline void add_products_of_8_bits(Ints& sums, Ints unsigned_ones, Ints signed_ones) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_ones), "v"(signed_ones));
}

constexpr bool splits_weights = false;
constexpr size_t strip_rows = 6, strip_vectors = 4;

}  // namespace
}  // namespace dynamic_tinybert

#include "kernels/linear_int8.inl"
#include "kernels/linear_int8_tiles.inl"

#pragma GCC pop_options

// What the compiler calls by itself.
extern "C" void* memcpy(void* to, const void* from, size_t count) {
    for (size_t k = 0; k < count; ++k)
        static_cast<volatile char*>(to)[k] = static_cast<const char*>(from)[k];
    return to;
}
extern "C" void* memset(void* to, int value, size_t count) {
    for (size_t k = 0; k < count; ++k)
        static_cast<volatile char*>(to)[k] = static_cast<char>(value);
    return to;
}

namespace dynamic_tinybert {
namespace {

constexpr uint16_t serial_line = 0x3F8;

uint8_t read_port(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void write_port(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

void print(const char* text) {
    write_port(serial_line + 3, 3);  // bytes of 8 bits
    for (; *text; ++text) {
        while (!(read_port(serial_line + 5) & 0x20)) {}
        write_port(serial_line, static_cast<uint8_t>(*text));
    }
    while (!(read_port(serial_line + 5) & 0x40)) {}
}

void print(size_t number) {
    char digits[21] = {}, *at = digits + 20;
    do
        *--at = static_cast<char>('0' + number % 10);
    while (number /= 10);
    print(at);
}

constexpr size_t most_rows = 70, most_depth = 516, most_width = 130;
alignas(64) int8_t weights[192 * most_depth];
uint8_t levels[most_rows * most_depth];
float result[most_rows * most_width], scale[most_width], bias[most_width];
size_t compared, wrong, neither;
uint32_t state = 1;

uint32_t random() {
    return (state = state * 1664525u + 1013904223u) >> 16;
}

void check(size_t rows, size_t depth, size_t width, int least, int most) {
    for (size_t k = 0; k < panels_of(width) * panel_columns * depth; ++k)
        weights[k] = static_cast<int8_t>(least + static_cast<int>(random() % static_cast<uint32_t>(most - least + 1)));
    for (size_t k = 0; k < rows * depth; ++k)
        levels[k] = static_cast<uint8_t>(random());
    for (size_t k = 0; k < rows * width; ++k)
        result[k] = -1.0f;
    const Linear linear{weights, scale, bias, nullptr, 0.0f, depth, width};
    for (size_t panel = panels_of(width); panel-- > 0;)
        multiply_panel_by_tiles<AmxTiles>(linear, levels, rows, panel, result, nullptr);
    for (size_t row = 0; row < rows; ++row)
        for (size_t column = 0; column < width; ++column) {
            int32_t sum = 0, sum_of_unsigned = 0;
            for (size_t k = 0; k < depth; ++k) {
                const int8_t weight = weights[column / panel_columns * panel_columns * depth +
                                              (k / depth_step * panel_columns + column % panel_columns) * depth_step +
                                              k % depth_step];
                sum += levels[row * depth + k] * weight;
                sum_of_unsigned += levels[row * depth + k] * static_cast<uint8_t>(weight);
            }
            const float got = result[row * width + column];
            wrong += got != static_cast<float>(sum);
            neither += got != static_cast<float>(sum) && got != static_cast<float>(sum_of_unsigned);
            ++compared;
        }
}

void check_all(int least, int most) {
    compared = wrong = neither = 0;
    constexpr size_t row_counts[] = {1, 15, 16, 17, 31, 32, 33, 48, 49, 64, 70};
    constexpr size_t depths[] = {4, 60, 64, 68, 128, 132, 384, 516}, widths[] = {1, 16, 17, 32, 33, 64, 65, 130};
    size_t turn = 0;
    for (size_t rows : row_counts)
        for (size_t depth : depths) {
            const size_t width = widths[turn++ % std::size(widths)];
            check(rows, depth, width, least, most);
        }
}

}  // namespace
}  // namespace dynamic_tinybert

extern "C" void run() {
    using namespace dynamic_tinybert;
    for (float& x : scale)
        x = 1.0f;
    check_all(0, 127);
    print("amx, weights 0 ... 127: ");
    print(wrong);
    print(" of ");
    print(compared);
    print(" sums are wrong\n");
    const size_t failed = wrong;
    check_all(-128, 127);
    print("amx, weights -128 ... 127: ");
    print(wrong);
    print(" of ");
    print(compared);
    print(" sums are wrong, ");
    print(neither);
    print(" even if this emulator takes weights as unsigned\nexit status ");
    print(failed + neither ? 1 : 0);
    print("\n");
}
