// The heart of MATMUL Q80_Q40_F32: one tile of packed weight rows times one group of prepared input rows.
//
// Weight tile (pack.hpp), for each pair of blocks: the scales of block 0 for all rows, then of block 1 (halves),
// then for block 0 and then 1 four vectors of kTileRows times four bytes, vector j being bytes 4j .. 4j+3 of each
// row: low nibbles are inputs 4j .. 4j+3, high nibbles 16 + 4j .. 16 + 4j+3. A last block without a partner
// stands alone. Prepared group, for each block: 32 bytes of each row, then -8 times their sum (int32) of each
// row, then the scale (float) of each row.
#pragma once

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

// Bytes that a prepared group has for each block of each row: 32 values, then -8 times their sum (i32) and the scale
// (f32).
constexpr uint32_t kPreparedBlockBytes = 40;

// How far ahead of its use a weight is asked for.
constexpr size_t kPrefetchBytes = 8192, kNearPrefetchBytes = 1152, kMostPrefetchBytes = 512 * 1024;

// Whether a core reads one stream at full speed without being asked for what comes next. Intel's prefetchers stop at
// the ends of 4 KiB pages; on AMD's Zen 4 asking only takes the place of reads, and costs up to a third of them.
#if defined(__x86_64__)
static const bool kFetchesAhead = !__builtin_cpu_is("intel");
#else
constexpr bool kFetchesAhead = false;
#endif

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

} // namespace DLLAMA_ISA
} // namespace dllama

#if defined(DLLAMA_PORTABLE)
#include "q40_tile_portable.hpp"
#elif defined(__AVX512F__)
#include "q40_tile_avx512.hpp"
#elif defined(__AVX2__)
#include "q40_tile_avx2.hpp"
#elif defined(__ARM_NEON)
#include "q40_tile_neon.hpp"
#elif defined(__SSE2__)
#include "q40_tile_sse2.hpp"
#else
#include "q40_tile_portable.hpp"
#endif

namespace dllama {
namespace DLLAMA_ISA {

#if !defined(__AVX512F__)

template <uint32_t kRows>
void q40_tiles_of(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared,
                  const unsigned char *tiles, uint32_t n_blocks) {
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
DLLAMA_INLINE void q40_tiles(float *const *out, uint32_t x0, uint32_t x1, const unsigned char *prepared,
                             uint32_t n_rows, const unsigned char *tiles, uint32_t n_blocks) {
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
