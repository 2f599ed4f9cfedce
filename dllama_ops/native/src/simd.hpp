// The vector vocabulary that kernels are written in, for the instruction set this file is compiled for.
//
// F holds kWidth floats, I as many int32. Arithmetic uses the compilers' vector operators; what they lack is
// below, once for each instruction set. Everything is static: see tensor.hpp.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "tensor.hpp"

#ifndef DLLAMA_ISA
#error "compile kernel sources with -DDLLAMA_ISA=<name of the instruction set>"
#endif

#define DLLAMA_INLINE static inline __attribute__((always_inline))

namespace dllama {
namespace DLLAMA_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float F __attribute__((vector_size(4 * kWidth)));
typedef int32_t I __attribute__((vector_size(4 * kWidth)));

DLLAMA_INLINE F load(const float *p) {
    F v;
    memcpy(&v, p, sizeof v);
    return v;
}

DLLAMA_INLINE void store(float *p, F v) {
    memcpy(p, &v, sizeof v);
}

// The first n < kWidth values, zeros behind them.
DLLAMA_INLINE F load_n(const float *p, int n) {
#if defined(__AVX512F__)
    return (F)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    F v = {};
    for (int i = 0; i < n; i++)
        v[i] = p[i];
    return v;
#endif
}

DLLAMA_INLINE void store_n(float *p, F v, int n) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    for (int i = 0; i < n; i++)
        p[i] = v[i];
#endif
}

DLLAMA_INLINE F zero() {
    return F{};
}

DLLAMA_INLINE F set(float value) {
    return F{} + value;
}

DLLAMA_INLINE I set_i(int32_t value) {
    return I{} + value;
}

// a * b + c, fused where the instruction set can.
DLLAMA_INLINE F fma(F a, F b, F c) {
#if defined(__AVX512F__)
    return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
    return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

DLLAMA_INLINE F max(F a, F b) {
#if defined(__AVX512F__)
    return (F)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (F)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__ARM_NEON)
    return (F)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#else
    const I greater = a > b;
    return (F)((greater & (I)a) | (~greater & (I)b));
#endif
}

DLLAMA_INLINE F min(F a, F b) {
#if defined(__AVX512F__)
    return (F)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (F)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__ARM_NEON)
    return (F)vminq_f32((float32x4_t)a, (float32x4_t)b);
#else
    const I less = a < b;
    return (F)((less & (I)a) | (~less & (I)b));
#endif
}

DLLAMA_INLINE I max_i(I a, I b) {
#if defined(__AVX512F__)
    return (I)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (I)_mm256_max_epi32((__m256i)a, (__m256i)b);
#elif defined(__ARM_NEON)
    return (I)vmaxq_s32((int32x4_t)a, (int32x4_t)b);
#else
    const I greater = a > b;
    return (greater & a) | (~greater & b);
#endif
}

DLLAMA_INLINE float sum(F v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
    __m128 h = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
#elif defined(__ARM_NEON)
    return vaddvq_f32((float32x4_t)v);
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

// The four sums of four vectors.
DLLAMA_INLINE void store_sums(float *p, F a, F b, F c, F d) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)a, (__m512)b, 0x44),
                                    _mm512_shuffle_f32x4((__m512)a, (__m512)b, 0xee));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4((__m512)c, (__m512)d, 0x44),
                                    _mm512_shuffle_f32x4((__m512)c, (__m512)d, 0xee));
    // Quarters of abcd: sums of a, b, c, d, each still in four lanes.
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const __m512 pairs = _mm512_add_ps(abcd, _mm512_permute_ps(abcd, 0x4e));
    const __m512 sums = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1));
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(p, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, sums)));
#else
    const __m256 ab = _mm256_hadd_ps((__m256)a, (__m256)b), cd = _mm256_hadd_ps((__m256)c, (__m256)d);
    const __m256 abcd = _mm256_hadd_ps(ab, cd);
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
#endif
#elif defined(__ARM_NEON)
    const float32x4_t ab = vpaddq_f32((float32x4_t)a, (float32x4_t)b), cd = vpaddq_f32((float32x4_t)c, (float32x4_t)d);
    vst1q_f32(p, vpaddq_f32(ab, cd));
#else
    p[0] = sum(a);
    p[1] = sum(b);
    p[2] = sum(c);
    p[3] = sum(d);
#endif
}

DLLAMA_INLINE float max_of(F v) {
    float m = v[0];
    for (int i = 1; i < kWidth; i++)
        m = v[i] > m ? v[i] : m;
    return m;
}

DLLAMA_INLINE int32_t max_of_i(I v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)v);
#elif defined(__AVX2__)
    __m128i h = _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
#elif defined(__ARM_NEON)
    return vmaxvq_s32((int32x4_t)v);
#else
    int32_t m = v[0];
    for (int i = 1; i < kWidth; i++)
        m = v[i] > m ? v[i] : m;
    return m;
#endif
}

DLLAMA_INLINE F abs(F v) {
    return (F)((I)v & 0x7fffffff);
}

DLLAMA_INLINE F to_float(I v) {
    return __builtin_convertvector(v, F);
}

// To the nearest integer, halves to even; only for |v| < 2^22.
DLLAMA_INLINE F round_even(F v) {
#if defined(__AVX512F__)
    return (F)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return (F)_mm256_round_ps((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__ARM_NEON)
    return (F)vrndnq_f32((float32x4_t)v);
#else
    const F magic = set(12582912.0f); // 1.5 * 2^23: the sum has no room for fraction bits
    return (v + magic) - magic;
#endif
}

// Integer-valued floats to int32.
DLLAMA_INLINE I to_int(F v) {
#if defined(__AVX512F__)
    return (I)_mm512_cvttps_epi32((__m512)v);
#elif defined(__AVX2__)
    return (I)_mm256_cvttps_epi32((__m256)v);
#else
    return __builtin_convertvector(v, I);
#endif
}

// kWidth signed bytes as floats.
DLLAMA_INLINE F load_i8(const int8_t *p) {
#if defined(__AVX512F__)
    return (F)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__)
    return (F)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    typedef int8_t B __attribute__((vector_size(kWidth)));
    B v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, F);
#endif
}

// Values -128 .. 127 as bytes.
DLLAMA_INLINE void store_i8(int8_t *p, I v) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(__AVX2__)
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
#else
    for (int i = 0; i < kWidth; i++)
        p[i] = (int8_t)v[i];
#endif
}

DLLAMA_INLINE float f16_to_f32(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#elif defined(__ARM_NEON)
    __fp16 v;
    memcpy(&v, &h, sizeof v);
    return (float)v;
#else
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float v;
    if ((h & 0x7c00) == 0x7c00) {
        bits |= 0x7f800000;
        memcpy(&v, &bits, sizeof v);
    } else {
        memcpy(&v, &bits, sizeof v);
        v *= 0x1p112f; // from the half's exponent bias to the single's; exact, subnormals too
    }
    return h & 0x8000 ? -v : v;
#endif
}

// Ties to even; what is too large becomes infinite.
DLLAMA_INLINE uint16_t f32_to_f16(float value) {
#if defined(__F16C__)
    return (uint16_t)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__ARM_NEON)
    const __fp16 v = (__fp16)value;
    uint16_t h;
    memcpy(&h, &v, sizeof h);
    return h;
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00); // not a number
    if (magnitude >= 0x47800000)
        return (uint16_t)(sign | 0x7c00); // 2^16 and more
    uint32_t mantissa = magnitude, shift = 13, bias = 0x38000000;
    if (magnitude < 0x38800000) { // below 2^-14: a subnormal half, counted in units of 2^-24
        if (magnitude < 0x33000000)
            return (uint16_t)sign;
        mantissa = (magnitude & 0x7fffff) | 0x800000;
        shift = 126 - (magnitude >> 23);
        bias = 0;
    }
    uint32_t half = (mantissa - bias) >> shift;
    const uint32_t rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1));
    return (uint16_t)(sign | half);
#endif
}

// Sums in eight lanes, added up in the order of the C++ program's x86 build: whatever is quantised afterwards then
// rounds as there, on every instruction set. (Where there is no fused multiply-add, nearly.)
struct Eight {
#if defined(__AVX2__)
    __m256 v;
#else
    F low, high;
#endif
};

DLLAMA_INLINE Eight eight_zeros() {
#if defined(__AVX2__)
    return Eight{_mm256_setzero_ps()};
#else
    return Eight{zero(), zero()};
#endif
}

// sums += a[0..8) * b[0..8)
DLLAMA_INLINE void add_products(Eight &sums, const float *a, const float *b) {
#if defined(__AVX2__)
    sums.v = _mm256_fmadd_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b), sums.v);
#else
    sums.low = fma(load(a), load(b), sums.low);
    sums.high = fma(load(a + 4), load(b + 4), sums.high);
#endif
}

// sums += a[0..8)
DLLAMA_INLINE void add_values_of(Eight &sums, const float *a) {
#if defined(__AVX2__)
    sums.v = _mm256_add_ps(sums.v, _mm256_loadu_ps(a));
#else
    sums.low += load(a);
    sums.high += load(a + 4);
#endif
}

DLLAMA_INLINE float total(const Eight &sums) {
#if defined(__AVX2__)
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(sums.v), _mm256_extractf128_ps(sums.v, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
#else
    const F h = sums.low + sums.high;
    return (h[0] + h[2]) + (h[1] + h[3]);
#endif
}

// e^v as the C++ program's x86 build has it: 2^(v log2 e), the rest by a polynomial that is off by 1e-5; as at +-88
// outside of that. With a better one, one value in a thousand falls on the other side of a rounding when activations
// are quantised, and this node drifts away from the others.
DLLAMA_INLINE F exp_alike(F v) {
    const F y = min(max(v, set(-88.0f)), set(88.0f)) * 1.4426950408889634f;
    const F n = round_even(y);
    const F f = y - n;
    F p = set(0.009618129107628477f);
    p = fma(p, f, set(0.05550410866482158f));
    p = fma(p, f, set(0.2402265069591007f));
    p = fma(p, f, set(0.6931471805599453f));
    p = fma(p, f, set(1.0f));
    return p * (F)((to_int(n) + 127) << 23);
}

// Values of a row that the C++ program computes with exp_alike, eight at a time; those behind with the exact one.
DLLAMA_INLINE uint32_t n_alike(uint32_t n) {
    return n - n % 8;
}

// e^v, within 2 units of the last place; saturates outside of +-87.
DLLAMA_INLINE F exp(F v) {
    v = min(max(v, set(-87.3365f)), set(88.3762f));
    const F n = round_even(v * 1.44269504088896341f);
    // v - n ln 2 in two steps: the first product is exact.
    F r = fma(n, set(-0.693359375f), v);
    r = fma(n, set(2.12194440e-4f), r);
    F p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = fma(p, r * r, r) + 1.0f;
    return p * (F)((to_int(n) + 127) << 23);
}

// One Q80 block from 32 floats, bit for bit what the reference writes: scale max|x| / 127 in f32, values times
// its reciprocal rounded half to even, then the scale rounded to half precision.
DLLAMA_INLINE void quantize_q80(const float *x, BlockQ80 *block) {
    I largest = I{};
    // Magnitudes compare like integers, and a NaN wins.
    for (uint32_t i = 0; i < kBlockSize; i += kWidth)
        largest = max_i(largest, (I)abs(load(x + i)));
    const int32_t bits = max_of_i(largest);
    float magnitude;
    memcpy(&magnitude, &bits, sizeof magnitude);
    const float d = magnitude / 127.0f;
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    block->d = f32_to_f16(d);
    for (uint32_t i = 0; i < kBlockSize; i += kWidth) {
        const F scaled = load(x + i) * inverse;
        // Infinite and NaN products (a reciprocal that overflowed) become 0.
        const I valid = abs(scaled) <= set(127.5f);
        store_i8(block->qs + i, to_int(round_even((F)((I)scaled & valid))));
    }
}

// n floats from n / 32 Q80 blocks.
DLLAMA_INLINE void dequantize_q80(float *out, const BlockQ80 *blocks, uint32_t n) {
    for (uint32_t x = 0; x < n; x += kBlockSize) {
        const BlockQ80 &block = blocks[x / kBlockSize];
        const float d = f16_to_f32(block.d);
        for (uint32_t i = 0; i < kBlockSize; i += kWidth)
            store(out + x + i, load_i8(block.qs + i) * d);
    }
}

} // namespace DLLAMA_ISA
} // namespace dllama
