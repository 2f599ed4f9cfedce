// Tiles of sixteen weight rows with AVX-512 VNNI. Included by q40_tile.hpp.
#pragma once

namespace dllama {
namespace DLLAMA_ISA {

// Keeps the compiler from putting the products of one row one after the other, where each waits for the last.
DLLAMA_INLINE void keep_order(__m512i &v) {
    asm("" : "+v"(v));
}

DLLAMA_INLINE __mmask16 columns_of(uint32_t n_columns) {
    return n_columns >= kTileRows ? (__mmask16)0xffff : (__mmask16)((1u << n_columns) - 1);
}

// Rows r0 .. r0 + kCount of the group, for one block of the tile.
template <uint32_t kRows, uint32_t kCount>
DLLAMA_INLINE void add_block(__m512 *total, const __m512i *weight, __m512 scales, const unsigned char *x, uint32_t r0) {
    __m512i dot[kCount];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kCount; r++)
        dot[r] = _mm512_set1_epi32(load_as<int32_t>(x + kRows * 32 + (r0 + r) * 4));
#pragma GCC unroll 8
    for (uint32_t j = 0; j < 8; j++)
#pragma GCC unroll 4
        for (uint32_t r = 0; r < kCount; r++) {
            dot[r] =
                _mm512_dpbusd_epi32(dot[r], weight[j], _mm512_set1_epi32(load_as<int32_t>(x + (r0 + r) * 32 + j * 4)));
            keep_order(dot[r]);
        }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kCount; r++) {
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(load_as<float>(x + kRows * 36 + (r0 + r) * 4)));
        total[r0 + r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r]), scale, total[r0 + r]);
    }
}

// Several rows: a block of the tile is unpacked once, then meets four rows at a time, whose sums stay in registers.
template <uint32_t kRows>
DLLAMA_INLINE void several_rows(float *const *out, uint32_t column, uint32_t n_columns, const unsigned char *prepared,
                                const unsigned char *tile, uint32_t n_blocks) {
    constexpr uint32_t kWhole = kRows / 4 * 4, kRest = kRows % 4;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 total[kRows];
    for (uint32_t r = 0; r < kRows; r++)
        total[r] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        if (kRows <= 4)
            for (uint32_t i = 0; i < 5; i++)
                __builtin_prefetch(block.nibbles + kPrefetchBytes + i * 64, 0, 2);
        __m512i weight[8];
        for (uint32_t j = 0; j < 4; j++) {
            const __m512i bytes = _mm512_loadu_si512(block.nibbles + j * 64);
            weight[j] = _mm512_and_si512(bytes, low);
            weight[4 + j] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
        }
        const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)block.scales));
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
#pragma GCC unroll 4
        for (uint32_t r = 0; r < kWhole; r += 4)
            add_block<kRows, 4>(total, weight, scales, x, r);
        if (kRest > 0)
            add_block<kRows, kRest ? kRest : 1>(total, weight, scales, x, kWhole);
    }
    for (uint32_t r = 0; r < kRows; r++)
        _mm512_mask_storeu_ps(out[r] + column, columns_of(n_columns), total[r]);
}

// One row is bound by memory. Where a core fetches ahead by itself one stream is all it takes. Elsewhere, what keeps
// its memory bandwidth busy is two tiles at a time, each line asked for early (the same place of the next two tiles)
// into the second cache, and again shortly before its use into the first; less of it reaches 70 to 85 %.
template <uint32_t kTiles, bool kPrefetch>
DLLAMA_INLINE void single_row(float *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile,
                              size_t tile_bytes, uint32_t n_blocks) {
    const __m512i low = _mm512_set1_epi8(15);
    const size_t far = 2 * tile_bytes < kMostPrefetchBytes ? 2 * tile_bytes : kMostPrefetchBytes;
    __m512 total[kTiles];
    for (uint32_t t = 0; t < kTiles; t++)
        total[t] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        const unsigned char *x = prepared + (size_t)b * kPreparedBlockBytes;
#pragma GCC unroll 2
        for (uint32_t t = 0; t < kTiles; t++) {
            const TileBlock block = tile_block(tile + t * tile_bytes, b, n_blocks);
            if (kPrefetch)
                for (uint32_t i = 0; i < 5; i++) {
                    __builtin_prefetch(block.nibbles + far + i * 64, 0, 2);
                    __builtin_prefetch(block.nibbles + kNearPrefetchBytes + i * 64, 0, 3);
                }
            __m512i dot = _mm512_set1_epi32(load_as<int32_t>(x + 32)), high = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (uint32_t j = 0; j < 4; j++) {
                const __m512i bytes = _mm512_loadu_si512(block.nibbles + j * 64);
                dot = _mm512_dpbusd_epi32(dot, _mm512_and_si512(bytes, low),
                                          _mm512_set1_epi32(load_as<int32_t>(x + j * 4)));
                high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low),
                                           _mm512_set1_epi32(load_as<int32_t>(x + 16 + j * 4)));
            }
            const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)block.scales));
            const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(load_as<float>(x + 36)));
            total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(dot, high)), scale, total[t]);
        }
    }
    for (uint32_t t = 0; t < kTiles; t++)
        _mm512_mask_storeu_ps(out + t * kTileRows, columns_of(n_columns - t * kTileRows), total[t]);
}

template <uint32_t kRows>
void q40_tiles_of(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared,
                  const unsigned char *tiles, uint32_t n_blocks) {
    const size_t tile_bytes = (size_t)n_blocks * kTileRows * sizeof(BlockQ40);
    for (uint32_t x = x0; x < x1; x += kTileRows) {
        const unsigned char *tile = tiles + x / kTileRows * tile_bytes;
        if (kRows > 1) {
            several_rows<kRows>(out, x, x1 - x, prepared, tile, n_blocks);
        } else if (kFetchesAhead) {
            single_row<1, false>(out[0] + x, x1 - x, prepared, tile, tile_bytes, n_blocks);
        } else if (x1 - x > kTileRows) {
            single_row<2, true>(out[0] + x, x1 - x, prepared, tile, tile_bytes, n_blocks);
            x += kTileRows;
        } else {
            single_row<1, true>(out[0] + x, x1 - x, prepared, tile, tile_bytes, n_blocks);
        }
    }
}

} // namespace DLLAMA_ISA
} // namespace dllama
