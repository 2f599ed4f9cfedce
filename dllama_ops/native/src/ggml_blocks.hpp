// Weights as ggml stores them: blocks into numbers, numbers into Q40 blocks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dllama {

// A stored type: its number in files, the values and bytes of a block, and what decodes blocks of it.
struct BlockFormat {
    uint32_t ggml_type;
    size_t n_values, n_bytes;
    void (*decode)(const unsigned char *blocks, size_t n_blocks, float *out);
};

// The formats of one instruction set.
struct BlockFormats {
    const BlockFormat *formats;
    size_t n_formats;
    void (*quantize_q40)(const float *values, size_t n_blocks, unsigned char *blocks);
};

} // namespace dllama
