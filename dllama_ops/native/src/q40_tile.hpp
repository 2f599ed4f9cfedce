// The heart of MATMUL Q80_Q40_F32: one tile of packed weight rows times one group of prepared input rows.
//
// Weight tile (pack.hpp), for each pair of blocks: the scales of block 0 for all rows, then of block 1 (halves),
// then for block 0 and then 1 four vectors of kTileRows times four bytes, vector j being bytes 4j .. 4j+3 of each
// row: low nibbles are inputs 4j .. 4j+3, high nibbles 16 + 4j .. 16 + 4j+3. A last block without a partner
// stands alone. Prepared group, for each block: 32 bytes of each row, then -8 times their sum (int32) of each
// row, then the scale (float) of each row.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

#if defined(__AVX512F__)
constexpr uint32_t kTileRows = 16, kGroupRows = 16;
#elif defined(__AVX2__)
constexpr uint32_t kTileRows = 8, kGroupRows = 4;
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr uint32_t kTileRows = 8, kGroupRows = 8;
#else
constexpr uint32_t kTileRows = 8, kGroupRows = 4;
#endif

#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr uint32_t kF32GroupRows = 4; // times 4 weight rows: as many sums as registers allow
#else
constexpr uint32_t kF32GroupRows = 2;
#endif

// How far ahead of its use a weight is asked for: hardware prefetch alone stops at page ends.
constexpr size_t kPrefetchBytes = 8192, kNearPrefetchBytes = 1152, kMostPrefetchBytes = 512 * 1024;

// Where block b of a tile has its scales and its nibbles.
struct TileBlock {
    const unsigned char *scales, *nibbles;
};

DLLAMA_INLINE TileBlock tile_block(const unsigned char *tile, uint32_t b, uint32_t n_blocks) {
    const uint32_t in_pair = b & 1, pair_blocks = (b | 1) < n_blocks ? 2 : 1;
    const unsigned char *pair = tile + (size_t)(b & ~1u) * kTileRows * sizeof(BlockQ40);
    return TileBlock{pair + in_pair * kTileRows * 2, pair + pair_blocks * kTileRows * 2 + in_pair * kTileRows * 16};
}

template <typename T> DLLAMA_INLINE T load_as(const void *p) {
    T v;
    memcpy(&v, p, sizeof v);
    return v;
}

#if defined(__AVX512F__)

// Keeps the compiler from putting the products of one row one after the other, where each waits for the last.
DLLAMA_INLINE void keep_order(__m512i &v) {
    asm("" : "+v"(v));
}

// Rows r0 .. r0 + kCount of the group, for one block of kTiles tiles.
template <uint32_t kRows, uint32_t kTiles, uint32_t kCount>
DLLAMA_INLINE void add_block(__m512 (*total)[kRows], const __m512i (*weight)[8], const __m512 *scales, const unsigned char *x, uint32_t r0) {
    __m512i dot[kTiles][kCount];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kCount; r++)
        for (uint32_t t = 0; t < kTiles; t++)
            dot[t][r] = _mm512_set1_epi32(load_as<int32_t>(x + kRows * 32 + (r0 + r) * 4));
#pragma GCC unroll 8
    for (uint32_t j = 0; j < 8; j++)
#pragma GCC unroll 8
        for (uint32_t r = 0; r < kCount; r++) {
            const __m512i values = _mm512_set1_epi32(load_as<int32_t>(x + (r0 + r) * 32 + j * 4));
            for (uint32_t t = 0; t < kTiles; t++) {
                dot[t][r] = _mm512_dpbusd_epi32(dot[t][r], weight[t][j], values);
                keep_order(dot[t][r]);
            }
        }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kCount; r++)
        for (uint32_t t = 0; t < kTiles; t++) {
            const __m512 scale = _mm512_mul_ps(scales[t], _mm512_set1_ps(load_as<float>(x + kRows * 36 + (r0 + r) * 4)));
            total[t][r0 + r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][r]), scale, total[t][r0 + r]);
        }
}

// Tiles that are done together: few rows leave registers for a second one, and its loads of the rows are free.
constexpr uint32_t tiles_for(uint32_t rows) {
    return rows >= 2 && rows <= 4 ? 2 : 1;
}

template <uint32_t kRows, uint32_t kTiles>
DLLAMA_INLINE void some_tiles(float *const *out, uint32_t column, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile, size_t tile_bytes, uint32_t n_blocks) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512 total[kTiles][kRows];
    for (uint32_t t = 0; t < kTiles; t++)
        for (uint32_t r = 0; r < kRows; r++)
            total[t][r] = _mm512_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        __m512i weight[kTiles][8];
        __m512 scales[kTiles];
        for (uint32_t t = 0; t < kTiles; t++) {
            const TileBlock block = tile_block(tile + t * tile_bytes, b, n_blocks);
            if (kRows <= 4)
                for (uint32_t i = 0; i < 5; i++)
                    __builtin_prefetch(block.nibbles + kPrefetchBytes + i * 64, 0, 2);
            for (uint32_t j = 0; j < 4; j++) {
                const __m512i bytes = _mm512_loadu_si512(block.nibbles + j * 64);
                weight[t][j] = _mm512_and_si512(bytes, low);
                weight[t][4 + j] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
            }
            scales[t] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)block.scales));
        }
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
        if (kRows <= 8) {
            add_block<kRows, kTiles, kRows <= 8 ? kRows : 1>(total, weight, scales, x, 0);
        } else {
            constexpr uint32_t kWhole = kRows / 4 * 4;
#pragma GCC unroll 4
            for (uint32_t r = 0; r < kWhole; r += 4)
                add_block<kRows, kTiles, 4>(total, weight, scales, x, r);
            if (kRows > kWhole)
                add_block<kRows, kTiles, kRows % 4 ? kRows % 4 : 1>(total, weight, scales, x, kWhole);
        }
    }
    for (uint32_t t = 0; t < kTiles; t++)
        for (uint32_t r = 0; r < kRows; r++) {
            const uint32_t left = n_columns - t * kTileRows;
            const __mmask16 columns = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
            _mm512_mask_storeu_ps(out[r] + column + t * kTileRows, columns, total[t][r]);
        }
}

// One row is bound by memory. What keeps a core's memory bandwidth busy: two tiles at a time, each line asked for
// early (the same place of the next two tiles) into the second cache, and again shortly before its use into the first.
// One stream, or either prefetch alone, reaches 70 to 85 % of what reading alone does.
template <uint32_t kTiles>
DLLAMA_INLINE void single_row(float *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile, size_t tile_bytes, uint32_t n_blocks) {
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
            for (uint32_t i = 0; i < 5; i++) {
                __builtin_prefetch(block.nibbles + far + i * 64, 0, 2);
                __builtin_prefetch(block.nibbles + kNearPrefetchBytes + i * 64, 0, 3);
            }
            __m512i dot = _mm512_set1_epi32(load_as<int32_t>(x + 32)), high = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (uint32_t j = 0; j < 4; j++) {
                const __m512i bytes = _mm512_loadu_si512(block.nibbles + j * 64);
                dot = _mm512_dpbusd_epi32(dot, _mm512_and_si512(bytes, low), _mm512_set1_epi32(load_as<int32_t>(x + j * 4)));
                high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low), _mm512_set1_epi32(load_as<int32_t>(x + 16 + j * 4)));
            }
            const __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)block.scales));
            const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(load_as<float>(x + 36)));
            total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(dot, high)), scale, total[t]);
        }
    }
    for (uint32_t t = 0; t < kTiles; t++) {
        const uint32_t left = n_columns - t * kTileRows;
        _mm512_mask_storeu_ps(out + t * kTileRows, left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1), total[t]);
    }
}

template <uint32_t kRows>
void q40_tiles_of(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared, const unsigned char *tiles, uint32_t n_blocks) {
    const size_t tile_bytes = (size_t)n_blocks * kTileRows * sizeof(BlockQ40);
    constexpr uint32_t kTiles = tiles_for(kRows);
    for (uint32_t x = x0; x < x1;) {
        const unsigned char *tile = tiles + x / kTileRows * tile_bytes;
        if (kRows == 1 && x1 - x > kTileRows) {
            single_row<2>(out[0] + x, x1 - x, prepared, tile, tile_bytes, n_blocks);
            x += 2 * kTileRows;
        } else if (kRows == 1) {
            single_row<1>(out[0] + x, x1 - x, prepared, tile, tile_bytes, n_blocks);
            x += kTileRows;
        } else if (x1 - x > (kTiles - 1) * kTileRows) {
            some_tiles<kRows, kTiles>(out, x, x1 - x, prepared, tile, tile_bytes, n_blocks);
            x += kTiles * kTileRows;
        } else {
            some_tiles<kRows, 1>(out, x, x1 - x, prepared, tile, tile_bytes, n_blocks);
            x += kTileRows;
        }
    }
}

#elif defined(__AVX2__)

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile, uint32_t n_blocks) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 total[kRows];
    for (uint32_t r = 0; r < kRows; r++)
        total[r] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        if (kRows == 1)
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
            const __m256i first = _mm256_and_si256(bytes, low), second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < kRows; r++) {
                const __m256i x0 = _mm256_set1_epi32(load_as<int32_t>(x + r * 32 + j * 4));
                const __m256i x1 = _mm256_set1_epi32(load_as<int32_t>(x + r * 32 + 16 + j * 4));
                dot[r] = _mm256_add_epi16(dot[r], _mm256_add_epi16(_mm256_maddubs_epi16(first, x0), _mm256_maddubs_epi16(second, x1)));
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

#elif defined(__ARM_FEATURE_DOTPROD)

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile, uint32_t n_blocks) {
    const uint8x16_t low = vdupq_n_u8(15);
    float32x4_t total[kRows][2];
    for (uint32_t r = 0; r < kRows; r++)
        total[r][0] = total[r][1] = vdupq_n_f32(0.0f);
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        if (kRows == 1)
            for (uint32_t i = 0; i < 3; i++)
                __builtin_prefetch(block.nibbles + kPrefetchBytes + i * 64, 0, 2);
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
        for (uint32_t half = 0; half < 2; half++) { // four rows of the tile at a time
            int8x16_t weight[8];
            for (uint32_t j = 0; j < 4; j++) {
                const uint8x16_t bytes = vld1q_u8(block.nibbles + j * 32 + half * 16);
                weight[j] = vreinterpretq_s8_u8(vandq_u8(bytes, low));
                weight[4 + j] = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
            }
            const float32x4_t scales = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(block.scales + half * 8))));
#pragma GCC unroll 8
            for (uint32_t r = 0; r < kRows; r++) {
                const int8x16_t x0 = vld1q_s8((const int8_t *)x + r * 32), x1 = vld1q_s8((const int8_t *)x + r * 32 + 16);
                int32x4_t dot = vdupq_n_s32(load_as<int32_t>(x + kRows * 32 + r * 4));
                dot = vdotq_laneq_s32(dot, weight[0], x0, 0);
                dot = vdotq_laneq_s32(dot, weight[1], x0, 1);
                dot = vdotq_laneq_s32(dot, weight[2], x0, 2);
                dot = vdotq_laneq_s32(dot, weight[3], x0, 3);
                dot = vdotq_laneq_s32(dot, weight[4], x1, 0);
                dot = vdotq_laneq_s32(dot, weight[5], x1, 1);
                dot = vdotq_laneq_s32(dot, weight[6], x1, 2);
                dot = vdotq_laneq_s32(dot, weight[7], x1, 3);
                const float32x4_t scale = vmulq_n_f32(scales, load_as<float>(x + kRows * 36 + r * 4));
                total[r][half] = vfmaq_f32(total[r][half], vcvtq_f32_s32(dot), scale);
            }
        }
    }
    for (uint32_t r = 0; r < kRows; r++) {
        if (n_columns == kTileRows) {
            vst1q_f32(out[r], total[r][0]);
            vst1q_f32(out[r] + 4, total[r][1]);
        } else {
            for (uint32_t c = 0; c < n_columns; c++)
                out[r][c] = c < 4 ? ((F)total[r][0])[c] : ((F)total[r][1])[c - 4];
        }
    }
}

#else

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile, uint32_t n_blocks) {
    float total[kRows][kTileRows] = {};
    for (uint32_t b = 0; b < n_blocks; b++) {
        const TileBlock block = tile_block(tile, b, n_blocks);
        const unsigned char *x = prepared + (size_t)b * kRows * kPreparedBlockBytes;
        float scales[kTileRows];
        for (uint32_t c = 0; c < kTileRows; c++)
            scales[c] = f16_to_f32(load_as<uint16_t>(block.scales + c * 2));
        for (uint32_t r = 0; r < kRows; r++) {
            const int8_t *values = (const int8_t *)x + r * 32;
            int32_t dot[kTileRows];
            for (uint32_t c = 0; c < kTileRows; c++)
                dot[c] = load_as<int32_t>(x + kRows * 32 + r * 4);
            for (uint32_t i = 0; i < 16; i++)
                for (uint32_t c = 0; c < kTileRows; c++) {
                    const int32_t byte = block.nibbles[i / 4 * kTileRows * 4 + c * 4 + i % 4];
                    dot[c] += (byte & 15) * values[i] + (byte >> 4) * values[16 + i];
                }
            const float d = load_as<float>(x + kRows * 36 + r * 4);
            for (uint32_t c = 0; c < kTileRows; c++)
                total[r][c] += (float)dot[c] * (scales[c] * d);
        }
    }
    for (uint32_t r = 0; r < kRows; r++)
        for (uint32_t c = 0; c < n_columns; c++)
            out[r][c] = total[r][c];
}

#endif

#if !defined(__AVX512F__)

template <uint32_t kRows>
void q40_tiles_of(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared, const unsigned char *tiles, uint32_t n_blocks) {
    const size_t tile_bytes = (size_t)n_blocks * kTileRows * sizeof(BlockQ40);
    for (uint32_t x = x0; x < x1; x += kTileRows) {
        float *to[kRows];
        for (uint32_t r = 0; r < kRows; r++)
            to[r] = out[r] + x;
        const uint32_t n_columns = x1 - x < kTileRows ? x1 - x : kTileRows;
        q40_tile_rows<kRows>(to, n_columns, prepared, tiles + x / kTileRows * tile_bytes, n_blocks);
    }
}

#endif

// out[r][x0..x1) = those rows of the weight times row r of the group of n_rows; x0 starts a tile
DLLAMA_INLINE void q40_tiles(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared, uint32_t n_rows, const unsigned char *tiles, uint32_t n_blocks) {
    using Rows = void (*)(float *const *, uint32_t, uint32_t, const unsigned char *, const unsigned char *, uint32_t);
    static const Rows by_count[] = {
        q40_tiles_of<1>,  q40_tiles_of<2>,  q40_tiles_of<3>,  q40_tiles_of<4>,
#if defined(__AVX512F__) || defined(__ARM_FEATURE_DOTPROD)
        q40_tiles_of<5>,  q40_tiles_of<6>,  q40_tiles_of<7>,  q40_tiles_of<8>,
#endif
#if defined(__AVX512F__)
        q40_tiles_of<9>,  q40_tiles_of<10>, q40_tiles_of<11>, q40_tiles_of<12>,
        q40_tiles_of<13>, q40_tiles_of<14>, q40_tiles_of<15>, q40_tiles_of<16>,
#endif
    };
    static_assert(sizeof by_count / sizeof by_count[0] == kGroupRows, "one instance for each size of a group");
    by_count[n_rows - 1](out, x0, x1, prepared, tiles, n_blocks);
}

} // namespace DLLAMA_ISA
} // namespace dllama
