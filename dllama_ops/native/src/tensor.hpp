// What a kernel reads and writes: rows of numbers in memory that somebody else owns.
//
// Kernel sources are compiled once for every instruction set, so nothing they include may leave a function
// behind that the linker could pick for another one: functions here are static, types are plain.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dllama {

enum class FloatType : int32_t { unk = -1, f32 = 0, f16 = 1, q40 = 2, q80 = 3 };

// Values in a Q40 or Q80 block.
constexpr uint32_t kBlockSize = 32;

// Scale, then nibbles: low ones are values 0-15, high ones 16-31; value = (nibble - 8) * d.
struct BlockQ40 {
    uint16_t d;
    uint8_t qs[kBlockSize / 2];
};

// Scale, then signed bytes; value = q * d.
struct BlockQ80 {
    uint16_t d;
    int8_t qs[kBlockSize];
};

static_assert(sizeof(BlockQ40) == 18 && sizeof(BlockQ80) == 34, "blocks are packed as on the wire");

// Rows [z][y] of x values; strides are in bytes, values of a row are contiguous. Memory need not be aligned
// beyond what its type asks for (4 bytes for F32, 2 for blocks).
struct Tensor {
    FloatType float_type;
    uint32_t z, y, x;
    unsigned char *data;
    ptrdiff_t z_stride, y_stride;
};

static inline unsigned char *row(const Tensor &t, uint32_t z, uint32_t y) {
    return t.data + (ptrdiff_t)z * t.z_stride + (ptrdiff_t)y * t.y_stride;
}

static inline float *f32_row(const Tensor &t, uint32_t z, uint32_t y) {
    return (float *)row(t, z, y);
}

static inline BlockQ80 *q80_row(const Tensor &t, uint32_t z, uint32_t y) {
    return (BlockQ80 *)row(t, z, y);
}

// Bytes that n values take; n is a whole number of blocks.
static inline size_t n_bytes(FloatType type, size_t n) {
    switch (type) {
    case FloatType::f32: return n * 4;
    case FloatType::f16: return n * 2;
    case FloatType::q40: return n / kBlockSize * sizeof(BlockQ40);
    case FloatType::q80: return n / kBlockSize * sizeof(BlockQ80);
    default: return 0;
    }
}

} // namespace dllama
