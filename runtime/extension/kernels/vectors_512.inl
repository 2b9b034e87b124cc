// Vectors of 512 bits, by AVX-512 F, BW, DQ and VL. A file of one instruction set includes this after its target
// pragma.

namespace dynamic_tinybert {
namespace {

constexpr size_t lanes = 16;  // numbers of 32 bits in a vector
using Floats = __m512;
using Ints = __m512i;
using Flags = __mmask16;  // a bit for each lane

inline Flags first_lanes(size_t count) {
    return count >= lanes ? 0xFFFF : static_cast<Flags>((1u << count) - 1);
}

inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline Floats load_first(const float* from, size_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline void store_first(float* to, Floats x, size_t count) { _mm512_mask_storeu_ps(to, first_lanes(count), x); }
inline Floats all(float x) { return _mm512_set1_ps(x); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
inline Floats mul_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats mul_sub(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
/// If a is NaN, the result is b.
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats absolute(Floats x) { return _mm512_andnot_ps(all(-0.0f), x); }
inline Floats rounded(Floats x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// x * 2^whole, where whole <= 0.
inline Floats times_power(Floats x, Floats whole) { return _mm512_scalef_ps(x, whole); }

inline Flags is_nan(Floats x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
inline Flags is_not_zero(Floats x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
inline Flags no_flags() { return 0; }
inline Flags either(Flags a, Flags b) { return a | b; }
inline bool any(Flags flags) { return flags != 0; }
inline Floats where(Flags flags, Floats x) { return _mm512_maskz_mov_ps(flags, x); }
inline Floats choose(Flags flags, Floats yes, Floats no) { return _mm512_mask_mov_ps(no, flags, yes); }
/// The first `count` lanes of x, the remaining ones of `others`.
inline Floats first_of(size_t count, Floats x, Floats others) {
    return choose(first_lanes(count), x, others);
}

inline float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }
/// Sum of 16 numbers, added in the same order for every width of vectors.
inline float sum_of(const Floats (&x)[1]) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x[0]), _mm512_extractf32x8_ps(x[0], 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

inline Ints no_ints() { return _mm512_setzero_si512(); }
inline Ints load_ints(const void* from) { return _mm512_loadu_si512(from); }
inline void store_ints(void* to, Ints x) { _mm512_storeu_si512(to, x); }
inline Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints to_nearest(Floats x) { return _mm512_cvtps_epi32(x); }
inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
/// Packs two numbers of 16 bits into each lane, the even one into the low half.
inline Ints pair_up(Ints even, Ints odd) {
    return _mm512_mask_mov_epi16(_mm512_slli_epi32(odd, 16), 0x55555555, even);
}
/// 16 numbers, saturated to 16 bits.
inline __m256i to_16_bits(const Ints (&x)[1]) { return _mm512_cvtsepi32_epi16(x[0]); }
/// Stores x rounded to even and clamped to 0 ... 255; NaN becomes 0.
inline void store_in_8_bits(uint8_t* to, Floats x, size_t count) {
    const Ints whole = to_nearest(larger(x, _mm512_setzero_ps()));
    _mm_mask_storeu_epi8(to, first_lanes(count), _mm512_cvtusepi32_epi8(whole));
}

}  // namespace
}  // namespace dynamic_tinybert
