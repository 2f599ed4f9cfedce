// How an op's work can be cut up, and what memory it touches: all a plan needs to know about it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace dllama {

struct Work {
    uint32_t columns; // of the output (or what stands for it), to be cut into pieces
    uint32_t grain;   // pieces are multiples of it, except for the last
    bool whole_rows;  // columns cannot be cut, rows can
    bool whole_batch; // rows cannot be cut, columns can
    bool is_heavy;    // worth cutting fine, so that a thread that falls behind is helped out
};

struct Access {
    enum Reach : uint8_t {
        same_columns, // what is computed at row y, columns x0..x1 touches row y, columns x0..x1 of this
        same_row,     // ... touches row y, any column
        anything,
    };
    Tensor tensor;
    Reach reach;
    bool is_write;
};

// Numbers that an op uses as indexes: the first n of each row, each of which must be in 0 .. limit - 1.
struct IndexUse {
    Tensor tensor;
    uint32_t n, limit;
    FaultKind kind;
};

Work work_of(const OpContext &op, uint32_t n_threads);
std::vector<Access> accesses_of(const OpContext &op);
std::vector<IndexUse> index_uses_of(const OpContext &op);

// Empty, or what is wrong with the op's shapes and parameters: kernels count on them to stay inside their memory.
std::string check(const OpContext &op);

} // namespace dllama
