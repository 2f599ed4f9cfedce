// One tile of eight weight rows with what every 64-bit x86 has. Included by q40_tile.hpp.
#pragma once

#include <emmintrin.h>

namespace dllama {
namespace DLLAMA_ISA {

// Bytes as numbers of 16 bits: those with even places (0, 2, 4 ...), and those with odd ones.
DLLAMA_INLINE __m128i even_bytes(__m128i v) {
    return _mm_srai_epi16(_mm_slli_epi16(v, 8), 8);
}

DLLAMA_INLINE __m128i odd_bytes(__m128i v) {
    return _mm_srai_epi16(v, 8);
}

// sums += four bytes of each of four weight rows (low nibbles, then high) times inputs 4 kJ .. 4 kJ + 3 of both halves
template <int kJ> DLLAMA_INLINE void add_bytes(__m128i &sums, __m128i bytes, const __m128i *even, const __m128i *odd) {
    const __m128i low = _mm_set1_epi16(15);
    constexpr int kLane = kJ * 0x55; // one 32-bit lane, that is two inputs, for all four rows
    const __m128i from_low =
        _mm_add_epi32(_mm_madd_epi16(_mm_and_si128(bytes, low), _mm_shuffle_epi32(even[0], kLane)),
                      _mm_madd_epi16(_mm_and_si128(_mm_srli_epi16(bytes, 8), low), _mm_shuffle_epi32(odd[0], kLane)));
    const __m128i from_high =
        _mm_add_epi32(_mm_madd_epi16(_mm_and_si128(_mm_srli_epi16(bytes, 4), low), _mm_shuffle_epi32(even[1], kLane)),
                      _mm_madd_epi16(_mm_srli_epi16(bytes, 12), _mm_shuffle_epi32(odd[1], kLane)));
    sums = _mm_add_epi32(sums, _mm_add_epi32(from_low, from_high));
}

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile,
                   uint32_t n_blocks) {
    __m128 total[kRows][2];
    for (uint32_t r = 0; r < kRows; r++)
        total[r][0] = total[r][1] = _mm_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
        float scales[kTileRows];
        for (uint32_t c = 0; c < kTileRows; c++)
            scales[c] = f16_to_f32(load_as<uint16_t>(block.scales + c * 2));
        for (uint32_t r = 0; r < kRows; r++) {
            const __m128i x0 = load_as<__m128i>(x + r * 32), x1 = load_as<__m128i>(x + r * 32 + 16);
            const __m128i even[2] = {even_bytes(x0), even_bytes(x1)}, odd[2] = {odd_bytes(x0), odd_bytes(x1)};
            const __m128 d = _mm_set1_ps(load_as<float>(x + kRows * 36 + r * 4));
            for (uint32_t half = 0; half < 2; half++) { // four rows of the tile at a time
                const unsigned char *nibbles = block.nibbles + half * 16;
                __m128i dot = _mm_set1_epi32(load_as<int32_t>(x + kRows * 32 + r * 4));
                add_bytes<0>(dot, load_as<__m128i>(nibbles), even, odd);
                add_bytes<1>(dot, load_as<__m128i>(nibbles + 32), even, odd);
                add_bytes<2>(dot, load_as<__m128i>(nibbles + 64), even, odd);
                add_bytes<3>(dot, load_as<__m128i>(nibbles + 96), even, odd);
                const __m128 scale = _mm_mul_ps(load_as<__m128>(scales + half * 4), d);
                total[r][half] = _mm_add_ps(total[r][half], _mm_mul_ps(_mm_cvtepi32_ps(dot), scale));
            }
        }
    }
    for (uint32_t r = 0; r < kRows; r++) {
        float sums[kTileRows];
        memcpy(sums, total[r], sizeof sums);
        memcpy(out[r], sums, n_columns * sizeof(float));
    }
}

} // namespace DLLAMA_ISA
} // namespace dllama
