// What a kernel is to the rest: a function that computes one region of an op's output, and the set of all
// kernels of one instruction set.
#pragma once

#include "op.hpp"

namespace dllama {

// Part of an op's output: rows y0..y1 (of every z) and columns x0..x1, of a batch of batch_size rows.
struct Region {
    uint32_t y0, y1, x0, x1;
    uint32_t batch_size;
};

// What an index out of range was to be.
enum class FaultKind : uint32_t { none, token, position, cache_row, expert };

// An index that came as data and is out of range. Kernels check every index before they use it.
struct Fault {
    FaultKind kind;
    uint32_t row;   // of the batch
    float value;    // as it came
    uint32_t limit; // value must be in 0 .. limit - 1
};

constexpr Fault kNoFault = {FaultKind::none, 0, 0.0f, 0};

// Memory of one thread, at least as large as the kernel set's scratch_bytes said.
struct Scratch {
    unsigned char *data;
};

using Kernel = Fault (*)(const OpContext &op, const Region &region, Scratch scratch);

struct KernelSet {
    const char *name;        // "baseline", "avx2", "avx512", "neon"
    uint32_t tile_rows;      // rows interleaved in a packed Q40 weight
    uint32_t group_rows;     // Q80 input rows that share one pass over a weight tile
    uint32_t f32_group_rows; // F32 input rows that do over F32 weight rows
    Kernel prepare_rows;
    // Adds up n_bytes (a multiple of 256) as 32-bit numbers: reading, and next to nothing else.
    int32_t (*sum_bytes)(const unsigned char *data, size_t n_bytes);
    // The kernel of a key, or null where there is none.
    Kernel (*find)(OpCode code, QuantType quant);
};

// Bytes that prepare_rows writes for each block of each row: 32 values, then -8 times their sum (i32) and the
// scale (f32).
constexpr uint32_t kPreparedBlockBytes = 40;

// Positions of a block of keys that attention transposes into its scratch.
constexpr uint32_t kAttentionPositions = 64;

// Rows are prepared in groups of at most group_rows, as equal as can be, so that no group is left with one row.
static inline uint32_t n_row_groups(uint32_t batch_size, uint32_t group_rows) {
    return (batch_size + group_rows - 1) / group_rows;
}

static inline uint32_t group_start(uint32_t group, uint32_t n_groups, uint32_t batch_size) {
    return (uint32_t)((uint64_t)group * batch_size / n_groups);
}

// An index from data: exact for every f32 that passes.
static inline bool is_index(float value, uint32_t limit) {
    return value >= 0.0f && value < (float)limit && (uint32_t)value < limit;
}

} // namespace dllama
