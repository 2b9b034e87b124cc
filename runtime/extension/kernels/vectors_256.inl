// Vectors of 256 bits, by AVX2 and FMA. A file of one instruction set includes this after its target pragma.

namespace dynamic_tinybert {
namespace {

constexpr size_t lanes = 8;  // numbers of 32 bits in a vector
using Floats = __m256;
using Ints = __m256i;
using Flags = __m256;  // all bits of a lane are set, or none

inline Flags first_lanes(size_t count) {
    alignas(32) static constexpr int32_t flags[2 * lanes] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_ps(reinterpret_cast<const float*>(flags + lanes - std::min(count, lanes)));
}

inline Floats load(const float* from) { return _mm256_loadu_ps(from); }
inline Floats load_first(const float* from, size_t count) {
    return count >= lanes ? load(from) : _mm256_maskload_ps(from, _mm256_castps_si256(first_lanes(count)));
}
inline void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline void store_first(float* to, Floats x, size_t count) {
    if (count >= lanes)
        store(to, x);
    else
        _mm256_maskstore_ps(to, _mm256_castps_si256(first_lanes(count)), x);
}
inline Floats all(float x) { return _mm256_set1_ps(x); }
inline Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
inline Floats mul_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats mul_sub(Floats a, Floats b, Floats c) { return _mm256_fmsub_ps(a, b, c); }
/// If a is NaN, the result is b.
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats absolute(Floats x) { return _mm256_andnot_ps(all(-0.0f), x); }
inline Floats rounded(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// x * 2^whole, where whole <= 0; 0 below 2^-126.
inline Floats times_power(Floats x, Floats whole) {
    const Ints exponent = _mm256_add_epi32(_mm256_cvtps_epi32(larger(all(-127.0f), whole)), _mm256_set1_epi32(127));
    return mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

inline Flags is_nan(Floats x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
inline Flags is_not_zero(Floats x) { return _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ); }
inline Flags no_flags() { return _mm256_setzero_ps(); }
inline Flags either(Flags a, Flags b) { return _mm256_or_ps(a, b); }
inline bool any(Flags flags) { return _mm256_movemask_ps(flags) != 0; }
inline Floats where(Flags flags, Floats x) { return _mm256_and_ps(flags, x); }
inline Floats choose(Flags flags, Floats yes, Floats no) { return _mm256_blendv_ps(no, yes, flags); }
/// The first `count` lanes of x, the remaining ones of `others`.
inline Floats first_of(size_t count, Floats x, Floats others) {
    return count >= lanes ? x : choose(first_lanes(count), x, others);
}

inline float largest_of(Floats x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
/// Sum of 16 numbers, added in the same order for every width of vectors.
inline float sum_of(const Floats (&x)[2]) {
    const Floats eight = add(x[0], x[1]);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

inline Ints no_ints() { return _mm256_setzero_si256(); }
inline Ints load_ints(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store_ints(void* to, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(to), x); }
inline Ints all_ints(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints to_nearest(Floats x) { return _mm256_cvtps_epi32(x); }
inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
/// Packs two numbers of 16 bits into each lane, the even one into the low half.
inline Ints pair_up(Ints even, Ints odd) { return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA); }
/// 16 numbers, saturated to 16 bits.
inline __m256i to_16_bits(const Ints (&x)[2]) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(x[0], x[1]), 0xD8);
}
/// Stores x rounded to even and clamped to 0 ... 255; NaN becomes 0.
inline void store_in_8_bits(uint8_t* to, Floats x, size_t count) {
    const Ints whole = to_nearest(smaller(larger(x, all(0.0f)), all(255.0f)));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const __m128i bytes = _mm_packus_epi16(words, words);
    if (count >= lanes) {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
    } else {
        const int64_t eight = _mm_cvtsi128_si64(bytes);
        __builtin_memcpy(to, &eight, count);
    }
}

}  // namespace
}  // namespace dynamic_tinybert
