// What a kernel is to the rest: a function that computes one region of an op's output.
#pragma once

#include "op.hpp"

namespace dllama {

// Part of an op's output: rows y0..y1 (of every z) and columns x0..x1, of a batch of batch_size rows.
struct Region {
    uint32_t y0, y1, x0, x1;
    uint32_t batch_size;
};

// What an index out of range was to be; stopped: no index is wrong, somebody asked to stop.
enum class FaultKind : uint32_t { none, token, position, cache_row, expert, stopped };

// An index that came as data and is out of range. Kernels check every index before they use it.
struct Fault {
    FaultKind kind;
    uint32_t row;   // of the batch
    float value;    // as it came
    uint32_t limit; // value must be in 0 .. limit - 1
};

constexpr Fault kNoFault = {FaultKind::none, 0, 0.0f, 0};
constexpr Fault kStopped = {FaultKind::stopped, 0, 0.0f, 0};

// Memory of one thread, at least as large as the kernel's entry in its OpSpec asked for.
struct Scratch {
    unsigned char *data;
};

using Kernel = Fault (*)(const OpContext &op, const Region &region, Scratch scratch);

// An index from data: exact for every f32 that passes.
static inline bool is_index(float value, uint32_t limit) {
    return value >= 0.0f && value < (float)limit && (uint32_t)value < limit;
}

} // namespace dllama
