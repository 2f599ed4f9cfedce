// What the blocks of each type are as numbers (ggml's dequantize_row_*, ggml-quants.c): plain loops of fixed lengths,
// which compilers vectorise. Products are rounded one after another, so that all sets and NumPy agree to the bit.
#include "ggml_blocks.hpp"

#include <cstring>

#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

uint16_t u16(const unsigned char *at) {
    uint16_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

float half(const unsigned char *at) {
    return f16_to_f32(u16(at));
}

float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void decode_f16(const unsigned char *blocks, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = half(blocks + 2 * i);
}

void decode_bf16(const unsigned char *blocks, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = from_bits(uint32_t(u16(blocks + 2 * i)) << 16);
}

void decode_q4_0(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 18, out += 32) {
        const float d = half(b);
        for (int j = 0; j < 16; j++)
            out[j] = d * float(int(b[2 + j] & 15) - 8);
        for (int j = 0; j < 16; j++)
            out[16 + j] = d * float(int(b[2 + j] >> 4) - 8);
    }
}

void decode_q4_1(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 20, out += 32) {
        const float d = half(b), m = half(b + 2);
        for (int j = 0; j < 16; j++)
            out[j] = d * float(int(b[4 + j] & 15)) + m;
        for (int j = 0; j < 16; j++)
            out[16 + j] = d * float(int(b[4 + j] >> 4)) + m;
    }
}

// The codes of 5 bits of a block: their low four, and a fifth of each in a word.
void codes_of_5(const unsigned char *fifth, const unsigned char *low, int *codes) {
    uint32_t bits;
    std::memcpy(&bits, fifth, sizeof bits);
    for (int j = 0; j < 16; j++)
        codes[j] = int(low[j] & 15) | int((bits >> j) & 1) << 4;
    for (int j = 0; j < 16; j++)
        codes[16 + j] = int(low[j] >> 4) | int((bits >> (16 + j)) & 1) << 4;
}

void decode_q5_0(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 22, out += 32) {
        int codes[32];
        codes_of_5(b + 2, b + 6, codes);
        const float d = half(b);
        for (int j = 0; j < 32; j++)
            out[j] = d * float(codes[j] - 16);
    }
}

void decode_q5_1(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 24, out += 32) {
        int codes[32];
        codes_of_5(b + 4, b + 8, codes);
        const float d = half(b), m = half(b + 2);
        for (int j = 0; j < 32; j++)
            out[j] = d * float(codes[j]) + m;
    }
}

void decode_q8_0(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 34, out += 32) {
        const float d = half(b);
        for (int j = 0; j < 32; j++)
            out[j] = d * float(int8_t(b[2 + j]));
    }
}

constexpr float kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// E2M1, doubled.
constexpr float kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void by_table(const unsigned char *codes, float d, const float *table, float *out) {
    for (int j = 0; j < 16; j++)
        out[j] = d * table[codes[j] & 15];
    for (int j = 0; j < 16; j++)
        out[16 + j] = d * table[codes[j] >> 4];
}

void decode_iq4_nl(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 18, out += 32)
        by_table(b + 2, half(b), kIq4, out);
}

void decode_mxfp4(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 17, out += 32) {
        const uint32_t e = b[0];
        by_table(b + 1, from_bits(e < 2 ? uint32_t(0x200000) << e : (e - 1) << 23), kFp4, out);
    }
}

void decode_iq4_xs(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 136) {
        const float d = half(b);
        const uint32_t high = u16(b + 2);
        for (int g = 0; g < 8; g++, out += 32) {
            const int low = (b[4 + g / 2] >> (4 * (g % 2))) & 15;
            const int scale = (low | int((high >> (2 * g)) & 3) << 4) - 32;
            by_table(b + 8 + 16 * g, d * float(scale), kIq4, out);
        }
    }
}

void decode_q2_k(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 84) {
        const float d = half(b + 80), low = half(b + 82);
        for (int g = 0; g < 16; g++, out += 16) {
            const unsigned char *q = b + 16 + 32 * (g / 8) + 16 * (g % 2);
            const int shift = 2 * ((g / 2) % 4);
            const float scale = d * float(int(b[g] & 15)), minimum = low * float(int(b[g] >> 4));
            for (int j = 0; j < 16; j++)
                out[j] = scale * float(int(q[j] >> shift) & 3) - minimum;
        }
    }
}

void decode_q3_k(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 110) {
        const unsigned char *high = b, *packed = b + 96;
        const float d = half(b + 108);
        for (int g = 0; g < 16; g++, out += 16) {
            const unsigned char *q = b + 32 + 32 * (g / 8) + 16 * (g % 2), *h = high + 16 * (g % 2);
            const int shift = 2 * ((g / 2) % 4), bit = g / 2;
            const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
            const int top = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
            const float scale = d * float((low | top << 4) - 32);
            for (int j = 0; j < 16; j++)
                out[j] = scale * float((int(q[j] >> shift) & 3) - (((h[j] >> bit) & 1) ? 0 : 4));
        }
    }
}

// Scale and minimum of 6 bits, of group g of eight.
void scale_and_minimum(const unsigned char *packed, int g, int &scale, int &minimum) {
    if (g < 4) {
        scale = packed[g] & 63;
        minimum = packed[4 + g] & 63;
    } else {
        scale = (packed[4 + g] & 15) | (packed[g - 4] >> 6) << 4;
        minimum = (packed[4 + g] >> 4) | (packed[g] >> 6) << 4;
    }
}

void decode_q4_k(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 144) {
        const float d = half(b), low = half(b + 2);
        for (int g = 0; g < 8; g++, out += 32) {
            int scale, minimum;
            scale_and_minimum(b + 4, g, scale, minimum);
            const float s = d * float(scale), m = low * float(minimum);
            const unsigned char *q = b + 16 + 32 * (g / 2);
            const int shift = 4 * (g % 2);
            for (int j = 0; j < 32; j++)
                out[j] = s * float(int(q[j] >> shift) & 15) - m;
        }
    }
}

void decode_q5_k(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 176) {
        const float d = half(b), low = half(b + 2);
        const unsigned char *high = b + 16;
        for (int g = 0; g < 8; g++, out += 32) {
            int scale, minimum;
            scale_and_minimum(b + 4, g, scale, minimum);
            const float s = d * float(scale), m = low * float(minimum);
            const unsigned char *q = b + 48 + 32 * (g / 2);
            const int shift = 4 * (g % 2);
            for (int j = 0; j < 32; j++)
                out[j] = s * float((int(q[j] >> shift) & 15) | (int(high[j] >> g) & 1) << 4) - m;
        }
    }
}

void decode_q6_k(const unsigned char *b, size_t n, float *out) {
    for (; n != 0; n--, b += 210) {
        const float d = half(b + 208);
        for (int g = 0; g < 16; g++, out += 16) {
            const unsigned char *q = b + 64 * (g / 8) + 32 * ((g / 2) % 2) + 16 * (g % 2);
            const unsigned char *high = b + 128 + 32 * (g / 8) + 16 * (g % 2);
            const int shift = 4 * ((g / 4) % 2), top = 2 * ((g / 2) % 4);
            const float scale = d * float(int8_t(b[192 + g]));
            for (int j = 0; j < 16; j++)
                out[j] = scale * float(((int(q[j] >> shift) & 15) | (int(high[j] >> top) & 3) << 4) - 32);
        }
    }
}

// As model converters quantise: the value of the largest magnitude becomes -8 times the scale.
void quantize_q40(const float *values, size_t n, unsigned char *out) {
    for (; n != 0; n--, values += 32, out += 18) {
        float high = values[0], low = values[0];
        for (int j = 1; j < 32; j++) {
            high = values[j] > high ? values[j] : high;
            low = values[j] < low ? values[j] : low;
        }
        const float d = (-low > high ? low : high) / -8.0f;
        const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
        int codes[32];
        for (int j = 0; j < 32; j++) {
            float code = values[j] * inverse + 8.5f;
            code = code < 0.0f ? 0.0f : code;
            code = code > 15.0f ? 15.0f : code;
            codes[j] = int(code);
        }
        const uint16_t scale = f32_to_f16(d);
        std::memcpy(out, &scale, sizeof scale);
        for (int j = 0; j < 16; j++)
            out[2 + j] = (unsigned char)(codes[j] | codes[16 + j] << 4);
    }
}

// By the numbers that files have for them (ggml's enum ggml_type).
constexpr BlockFormat kFormats[] = {
    {1, 1, 2, decode_f16},         {2, 32, 18, decode_q4_0},     {3, 32, 20, decode_q4_1},
    {6, 32, 22, decode_q5_0},      {7, 32, 24, decode_q5_1},     {8, 32, 34, decode_q8_0},
    {10, 256, 84, decode_q2_k},    {11, 256, 110, decode_q3_k},  {12, 256, 144, decode_q4_k},
    {13, 256, 176, decode_q5_k},   {14, 256, 210, decode_q6_k},  {20, 32, 18, decode_iq4_nl},
    {23, 256, 136, decode_iq4_xs}, {30, 1, 2, decode_bf16},      {39, 32, 17, decode_mxfp4},
};

} // namespace

const BlockFormats block_formats = {kFormats, sizeof kFormats / sizeof kFormats[0], quantize_q40};

} // namespace DLLAMA_ISA
} // namespace dllama
