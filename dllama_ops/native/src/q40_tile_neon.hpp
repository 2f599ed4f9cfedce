// One tile of eight weight rows with NEON, with its dot products where there are any. Included by q40_tile.hpp.
#pragma once

namespace dllama {
namespace DLLAMA_ISA {

#if defined(__ARM_FEATURE_DOTPROD)

// start + nibbles (eight vectors of four rows times four bytes) . x
DLLAMA_INLINE int32x4_t dot_block(int32x4_t start, const int8x16_t *nibbles, int8x16_t x0, int8x16_t x1) {
    start = vdotq_laneq_s32(start, nibbles[0], x0, 0);
    start = vdotq_laneq_s32(start, nibbles[1], x0, 1);
    start = vdotq_laneq_s32(start, nibbles[2], x0, 2);
    start = vdotq_laneq_s32(start, nibbles[3], x0, 3);
    start = vdotq_laneq_s32(start, nibbles[4], x1, 0);
    start = vdotq_laneq_s32(start, nibbles[5], x1, 1);
    start = vdotq_laneq_s32(start, nibbles[6], x1, 2);
    return vdotq_laneq_s32(start, nibbles[7], x1, 3);
}

#else

// Products of 16 bits, of which eight fit a sum: each is at most 15 * 128 in magnitude.
struct Products {
    int16x8_t low = vdupq_n_s16(0), high = vdupq_n_s16(0);

    template <int kLane> inline __attribute__((always_inline)) void add(int8x16_t nibbles, int8x16_t x) {
        const int8x16_t values = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), kLane));
        low = vmlal_s8(low, vget_low_s8(nibbles), vget_low_s8(values));
        high = vmlal_high_s8(high, nibbles, values);
    }
};

// start + nibbles (eight vectors of four rows times four bytes) . x
DLLAMA_INLINE int32x4_t dot_block(int32x4_t start, const int8x16_t *nibbles, int8x16_t x0, int8x16_t x1) {
    Products products;
    products.add<0>(nibbles[0], x0);
    products.add<1>(nibbles[1], x0);
    products.add<2>(nibbles[2], x0);
    products.add<3>(nibbles[3], x0);
    products.add<0>(nibbles[4], x1);
    products.add<1>(nibbles[5], x1);
    products.add<2>(nibbles[6], x1);
    products.add<3>(nibbles[7], x1);
    return vaddq_s32(start, vpaddq_s32(vpaddlq_s16(products.low), vpaddlq_s16(products.high)));
}

#endif

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile,
                   uint32_t n_blocks) {
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
            const float32x4_t scales =
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)(block.scales + half * 8))));
#pragma GCC unroll 8
            for (uint32_t r = 0; r < kRows; r++) {
                const int8x16_t x0 = vld1q_s8((const int8_t *)x + r * 32),
                                x1 = vld1q_s8((const int8_t *)x + r * 32 + 16);
                const int32x4_t dot = dot_block(vdupq_n_s32(load_as<int32_t>(x + kRows * 32 + r * 4)), weight, x0, x1);
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

} // namespace DLLAMA_ISA
} // namespace dllama
