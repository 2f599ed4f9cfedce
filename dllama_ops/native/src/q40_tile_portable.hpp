// One tile of eight weight rows in plain C++. Included by q40_tile.hpp.
#pragma once

namespace dllama {
namespace DLLAMA_ISA {

template <uint32_t kRows>
void q40_tile_rows(float *const *out, uint32_t n_columns, const unsigned char *prepared, const unsigned char *tile,
                   uint32_t n_blocks) {
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

} // namespace DLLAMA_ISA
} // namespace dllama
