// How an op's work can be cut up, and what memory it touches: what a plan needs to know to let ops share a step.
#pragma once

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

// Pieces of a row end on cache lines, so that two threads seldom write to the same one.
constexpr uint32_t kLine = 16;

// A whole block where the input or output has blocks, else a cache line.
uint32_t blocks_or_line(const OpContext &op);

// Light work, cut anywhere: what most ops have.
Work work_by_columns(const OpContext &op, uint32_t n_threads);

// Light work of which a row cannot be cut, since each value depends on the whole row.
Work work_by_rows(const OpContext &op, uint32_t n_threads);

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

// Takes down what an op touches.
class Accesses {
public:
    explicit Accesses(std::vector<Access> &list);

    void reads(const Tensor &tensor, Access::Reach reach);
    void writes(const Tensor &tensor, Access::Reach reach);

private:
    std::vector<Access> &list_;
};

// Input and output, both at the same columns.
void touch_same_columns(const OpContext &op, Accesses &touched);

// Numbers that an op uses as indexes: the first n of each row, each of which must be in 0 .. limit - 1.
struct IndexUse {
    Tensor tensor;
    uint32_t n, limit;
    FaultKind kind; // none: it uses no indexes
};

constexpr IndexUse kNoIndexes = {{FloatType::unk, 0, 0, 0, nullptr, 0, 0}, 0, 0, FaultKind::none};

} // namespace dllama
