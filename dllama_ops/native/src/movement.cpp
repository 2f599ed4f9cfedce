// EMBEDDING, CAST, REPEAT_Z and SHIFT. Where a type has blocks, columns come in whole ones.
#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

void copy_f32(float *out, const float *in, const Region &region) {
    memmove(out + region.x0, in + region.x0, (size_t)(region.x1 - region.x0) * sizeof(float));
}

void copy_q80(BlockQ80 *out, const BlockQ80 *in, const Region &region) {
    const uint32_t b0 = region.x0 / kBlockSize, b1 = region.x1 / kBlockSize;
    memmove(out + b0, in + b0, (size_t)(b1 - b0) * sizeof(BlockQ80));
}

void quantize(BlockQ80 *out, const float *in, const Region &region) {
    for (uint32_t x = region.x0; x < region.x1; x += kBlockSize)
        quantize_q80(in + x, out + x / kBlockSize);
}

// The weight's row for the token of batch row y, or null where there is none.
const float *embedding_row(const OpContext &op, uint32_t y, Fault *fault) {
    const float token = f32_row(op.input, 0, y)[0];
    if (!is_index(token, op.weight.y)) {
        *fault = Fault{FaultKind::token, y, token, op.weight.y};
        return nullptr;
    }
    return (const float *)op.weight.data + (size_t)token * op.weight.x;
}

// out (n_batches, x) = weight (y, x) at row in (n_batches, 1)
Fault embedding_f32(const OpContext &op, const Region &region, Scratch) {
    Fault fault = kNoFault;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float *in = embedding_row(op, y, &fault);
        if (!in)
            return fault;
        copy_f32(f32_row(op.output, 0, y), in, region);
    }
    return fault;
}

Fault embedding_f32_q80(const OpContext &op, const Region &region, Scratch) {
    Fault fault = kNoFault;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float *in = embedding_row(op, y, &fault);
        if (!in)
            return fault;
        quantize(q80_row(op.output, 0, y), in, region);
    }
    return fault;
}

// out (z, n_batches, x) = in (z, n_batches, x)
Fault cast_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++)
            copy_f32(f32_row(op.output, z, y), f32_row(op.input, z, y), region);
    return kNoFault;
}

Fault cast_q80(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++)
            copy_q80(q80_row(op.output, z, y), q80_row(op.input, z, y), region);
    return kNoFault;
}

Fault cast_f32_q80(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++)
            quantize(q80_row(op.output, z, y), f32_row(op.input, z, y), region);
    return kNoFault;
}

Fault cast_q80_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            const BlockQ80 *in = q80_row(op.input, z, y);
            float *out = f32_row(op.output, z, y);
            dequantize_q80(out + region.x0, in + region.x0 / kBlockSize, region.x1 - region.x0);
        }
    return kNoFault;
}

// out (z, n_batches, x) = in (1, n_batches, x) for every z
Fault repeat_z_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++)
            copy_f32(f32_row(op.output, z, y), f32_row(op.input, 0, y), region);
    return kNoFault;
}

Fault repeat_z_f32_q80(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t y = region.y0; y < region.y1; y++) {
        quantize(q80_row(op.output, 0, y), f32_row(op.input, 0, y), region);
        for (uint32_t z = 1; z < op.output.z; z++)
            copy_q80(q80_row(op.output, z, y), q80_row(op.output, 0, y), region);
    }
    return kNoFault;
}

// Row indexes (n_batches, 1) of the raw output, rows as wide as the input's = in (n_batches, x)
Fault shift_f32(const OpContext &op, const Region &region, Scratch) {
    const uint32_t n_rows = op.output.x / op.input.x;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float index = f32_row(op.params.shift.indexes, 0, y)[0];
        if (!is_index(index, n_rows))
            return Fault{FaultKind::cache_row, y, index, n_rows};
        copy_f32(f32_row(op.output, 0, 0) + (size_t)index * op.input.x, f32_row(op.input, 0, y), region);
    }
    return kNoFault;
}

// ---- specs

void check_embedding(const OpContext &op, ShapeCheck &check) {
    check.require_weight(FloatType::f32, 1, op.weight.y, op.output.x);
}

void touch_embedding(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_row);
    touched.writes(op.output, Access::same_columns);
}

IndexUse embedding_tokens(const OpContext &op) {
    return {op.input, 1, op.weight.y, FaultKind::token};
}

void check_repeat_z(const OpContext &op, ShapeCheck &check) {
    check.require(op.input.z == 1 && op.input.x == op.output.x, "the input must be one z of the output's width");
}

void check_shift(const OpContext &op, ShapeCheck &check) {
    check.require_rows(op.params.shift.indexes, FloatType::f32, 1, 1, "indexes must be F32 [n_batches][1]");
    check.require(op.output.x >= op.input.x, "the output must have room for a row of the input's width");
}

// Of two rows with one index the later one stays.
Work shift_work(const OpContext &op, uint32_t) {
    return {op.input.x, blocks_or_line(op), false, true, false};
}

void touch_shift(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_columns);
    touched.reads(op.params.shift.indexes, Access::same_row);
    touched.writes(op.output, Access::anything);
}

IndexUse shift_indexes(const OpContext &op) {
    return {op.params.shift.indexes, 1, op.output.x / op.input.x, FaultKind::cache_row};
}

constexpr KernelEntry kEmbedding[] = {
    {QuantType::f32_f32_f32, embedding_f32},
    {QuantType::f32_f32_q80, embedding_f32_q80},
};

constexpr KernelEntry kCast[] = {
    {QuantType::f32_f32_f32, cast_f32},
    {QuantType::f32_f32_q80, cast_f32_q80},
    {QuantType::q80_q80_q80, cast_q80},
    {QuantType::q80_q80_f32, cast_q80_f32},
};

constexpr KernelEntry kRepeatZ[] = {
    {QuantType::f32_f32_f32, repeat_z_f32},
    {QuantType::f32_f32_q80, repeat_z_f32_q80},
};

constexpr KernelEntry kShift[] = {{QuantType::f32_f32_f32, shift_f32}};
constexpr ParamField kShiftParams[] = {DLLAMA_PARAM(ShiftParams, indexes)};

constexpr OpSpec kOps[] = {
    {OpCode::embedding,
     "embedding",
     kEmbedding,
     {},
     check_embedding,
     work_by_columns,
     touch_embedding,
     embedding_tokens,
     nullptr,
     kLooksUpWeight},
    {OpCode::cast, "cast", kCast, {}, check_same_shape, work_by_columns, touch_same_columns},
    {OpCode::repeat_z, "repeat_z", kRepeatZ, {}, check_repeat_z, work_by_columns, touch_same_columns},
    {OpCode::shift, "shift", kShift, kShiftParams, check_shift, shift_work, touch_shift, shift_indexes, nullptr,
     kWritesRawOutput},
};

} // namespace

const OpTable movement_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
