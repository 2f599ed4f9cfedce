// One tile of eight weight rows with AVX2. Included by q40_tile.hpp.
#pragma once

namespace dllama {
namespace DLLAMA_ISA {

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile,
                   uint32_t n_blocks) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 total[kRows];
    for (uint32_t r = 0; r < kRows; r++)
        total[r] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        if (kRows == 1 && !kFetchesAhead)
            for (uint32_t i = 0; i < 3; i++)
                __builtin_prefetch(block.nibbles + kPrefetchBytes + i * 64, 0, 2);
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
        __m256i dot[kRows];
        for (uint32_t r = 0; r < kRows; r++)
            dot[r] = _mm256_setzero_si256();
        // 16-bit sums hold: 8 products of two terms, each at most 15 * 128 in magnitude.
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4; j++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i *)(block.nibbles + j * 32));
            const __m256i first = _mm256_and_si256(bytes, low),
                          second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < kRows; r++) {
                const __m256i x0 = _mm256_set1_epi32(load_as<int32_t>(x + r * 32 + j * 4));
                const __m256i x1 = _mm256_set1_epi32(load_as<int32_t>(x + r * 32 + 16 + j * 4));
                dot[r] = _mm256_add_epi16(
                    dot[r], _mm256_add_epi16(_mm256_maddubs_epi16(first, x0), _mm256_maddubs_epi16(second, x1)));
            }
        }
        const __m256 scales = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)block.scales));
        for (uint32_t r = 0; r < kRows; r++) {
            const __m256i correction = _mm256_set1_epi32(load_as<int32_t>(x + kRows * 32 + r * 4));
            const __m256i whole = _mm256_add_epi32(_mm256_madd_epi16(dot[r], ones), correction);
            const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(load_as<float>(x + kRows * 36 + r * 4)));
            total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, total[r]);
        }
    }
    for (uint32_t r = 0; r < kRows; r++) {
        if (n_columns == kTileRows)
            _mm256_storeu_ps(out[r], total[r]);
        else
            store_n(out[r], (F)total[r], (int)n_columns);
    }
}

} // namespace DLLAMA_ISA
} // namespace dllama
