#include "checks.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace dynamic_tinybert {
namespace {

char current[200] = "nothing yet";

}  // namespace

const char* current_check() {
    return current;
}

Guarded<float> Random::normals(size_t count, float scale) {
    std::vector<float> values(count);
    for (float& value : values)
        value = scale * normal();
    return Guarded<float>(values);
}

Guarded<float> Random::uniforms(size_t count, float from, float to) {
    std::vector<float> values(count);
    for (float& value : values)
        value = uniform(from, to);
    return Guarded<float>(values);
}

void Checks::begin(const char* format, ...) {
    const int begun = std::snprintf(current, sizeof current, "%s: ", m_path.c_str());
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(current + begun, sizeof current - static_cast<size_t>(begun), format, arguments);
    va_end(arguments);
}

template <typename T, typename Wrong>
void Checks::compare(const Guarded<T>& got, const Guarded<T>& expected, const Wrong& wrong) {
    ++m_comparisons;
    size_t count = 0, first = 0;
    for (size_t k = expected.size(); k-- > 0;)
        if (wrong(got[k], expected[k])) {
            ++count;
            first = k;
        }
    if (count == 0)
        return;
    ++m_mismatches;
    std::printf("MISMATCH %s: %zu of %zu numbers, first at %zu: %.9g instead of %.9g%s\n", current, count,
                expected.size(), first, static_cast<double>(got[first]), static_cast<double>(expected[first]), m_other);
}

void Checks::equal(const Guarded<float>& got, const Guarded<float>& expected) {
    compare(got, expected, [](float a, float b) {
        return !(std::isnan(a) && std::isnan(b)) && std::memcmp(&a, &b, sizeof a) != 0;
    });
}

void Checks::equal(const Guarded<uint8_t>& got, const Guarded<uint8_t>& expected) {
    compare(got, expected, [](uint8_t a, uint8_t b) { return a != b; });
}

void Checks::close(const Guarded<float>& got, const Guarded<float>& expected, float absolute, float relative) {
    compare(got, expected, [&](float a, float b) {
        if (std::isnan(a) || std::isnan(b))
            return std::isnan(a) != std::isnan(b);
        return !(std::abs(a - b) <= absolute + relative * std::abs(b));
    });
}

void Checks::rounded_alike(const Guarded<uint8_t>& got, const Guarded<uint8_t>& expected, double share) {
    size_t apart = 0;
    for (size_t k = 0; k < expected.size(); ++k)
        apart += got[k] != expected[k];
    const bool too_many = static_cast<double>(apart) > 1.0 + share * static_cast<double>(expected.size());
    compare(got, expected, [&](uint8_t a, uint8_t b) { return too_many ? a != b : std::abs(a - b) > 1; });
}

}  // namespace dynamic_tinybert
