// MUL, SCALE, MERGE_ADD and MERGE_SUM.
#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// out (z, n_batches, x) = in * multiplier, all of one shape
Fault mul_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            const float *in = f32_row(op.input, z, y), *by = f32_row(op.params.mul.multiplier, z, y);
            float *out = f32_row(op.output, z, y);
            uint32_t x = region.x0;
            for (; x + kWidth <= region.x1; x += kWidth)
                store(out + x, load(in + x) * load(by + x));
            for (; x < region.x1; x++)
                out[x] = in[x] * by[x];
        }
    return kNoFault;
}

// out (z, n_batches, x) = in * scale (z, n_batches, 1)
Fault scale_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            const float *in = f32_row(op.input, z, y);
            const float by = f32_row(op.params.scale.scale, z, y)[0];
            float *out = f32_row(op.output, z, y);
            uint32_t x = region.x0;
            for (; x + kWidth <= region.x1; x += kWidth)
                store(out + x, load(in + x) * by);
            for (; x < region.x1; x++)
                out[x] = in[x] * by;
        }
    return kNoFault;
}

// out (n_batches, x) += each of the n slices of in (n_batches, n * x)
Fault merge_add_f32(const OpContext &op, const Region &region, Scratch) {
    const uint32_t n_slices = op.input.x / op.output.x;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        float *out = f32_row(op.output, 0, y);
        for (uint32_t slice = 0; slice < n_slices; slice++) {
            const float *in = f32_row(op.input, 0, y) + (size_t)slice * op.output.x;
            uint32_t x = region.x0;
            for (; x + kWidth <= region.x1; x += kWidth)
                store(out + x, load(out + x) + load(in + x));
            for (; x < region.x1; x++)
                out[x] += in[x];
        }
    }
    return kNoFault;
}

// The same from Q80 slices; columns come in whole blocks.
Fault merge_add_q80(const OpContext &op, const Region &region, Scratch) {
    const uint32_t n_slices = op.input.x / op.output.x;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        float *out = f32_row(op.output, 0, y);
        for (uint32_t slice = 0; slice < n_slices; slice++) {
            const BlockQ80 *in = q80_row(op.input, 0, y) + (size_t)slice * (op.output.x / kBlockSize);
            for (uint32_t x = region.x0; x < region.x1; x += kBlockSize) {
                const BlockQ80 &block = in[x / kBlockSize];
                const float d = f16_to_f32(block.d);
                for (uint32_t i = 0; i < kBlockSize; i += kWidth)
                    store(out + x + i, load(out + x + i) + load_i8(block.qs + i) * d);
            }
        }
    }
    return kNoFault;
}

// out (n_batches, x) = sum over z of in (z, n_batches, x)
Fault merge_sum_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t y = region.y0; y < region.y1; y++) {
        float *out = f32_row(op.output, 0, y);
        uint32_t x = region.x0;
        for (; x + kWidth <= region.x1; x += kWidth) {
            F s = load(f32_row(op.input, 0, y) + x);
            for (uint32_t z = 1; z < op.input.z; z++)
                s += load(f32_row(op.input, z, y) + x);
            store(out + x, s);
        }
        for (; x < region.x1; x++) {
            float s = f32_row(op.input, 0, y)[x];
            for (uint32_t z = 1; z < op.input.z; z++)
                s += f32_row(op.input, z, y)[x];
            out[x] = s;
        }
    }
    return kNoFault;
}

// ---- specs

void check_mul(const OpContext &op, ShapeCheck &check) {
    check.require_same_shape();
    check.require_rows(op.params.mul.multiplier, FloatType::f32, op.output.z, op.output.x,
                       "the multiplier must have the output's shape");
}

void touch_mul(const OpContext &op, Accesses &touched) {
    touch_same_columns(op, touched);
    touched.reads(op.params.mul.multiplier, Access::same_columns);
}

void check_scale(const OpContext &op, ShapeCheck &check) {
    check.require_same_shape();
    check.require_rows(op.params.scale.scale, FloatType::f32, op.output.z, 1, "scale must be F32 [z][n_batches][1]");
}

void touch_scale(const OpContext &op, Accesses &touched) {
    touch_same_columns(op, touched);
    touched.reads(op.params.scale.scale, Access::same_row);
}

void check_merge_add(const OpContext &op, ShapeCheck &check) {
    check.require(op.input.x % op.output.x == 0, "the input must be whole slices of the output's width");
}

void touch_merge_add(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, op.input.x == op.output.x ? Access::same_columns : Access::same_row);
    touched.writes(op.output, Access::same_columns);
}

void check_merge_sum(const OpContext &op, ShapeCheck &check) {
    check.require(op.input.x == op.output.x, "input and output must have one width");
}

constexpr KernelEntry kMul[] = {{QuantType::f32_f32_f32, mul_f32}};
constexpr ParamField kMulParams[] = {DLLAMA_PARAM(MulParams, multiplier)};

constexpr KernelEntry kScale[] = {{QuantType::f32_f32_f32, scale_f32}};
constexpr ParamField kScaleParams[] = {DLLAMA_PARAM(ScaleParams, scale)};

constexpr KernelEntry kMergeAdd[] = {
    {QuantType::f32_f32_f32, merge_add_f32},
    {QuantType::q80_q80_f32, merge_add_q80},
};

constexpr KernelEntry kMergeSum[] = {{QuantType::f32_f32_f32, merge_sum_f32}};

constexpr OpSpec kOps[] = {
    {OpCode::mul, "mul", kMul, kMulParams, check_mul, work_by_columns, touch_mul},
    {OpCode::scale, "scale", kScale, kScaleParams, check_scale, work_by_columns, touch_scale},
    {OpCode::merge_add, "merge_add", kMergeAdd, {}, check_merge_add, work_by_columns, touch_merge_add},
    {OpCode::merge_sum, "merge_sum", kMergeSum, {}, check_merge_sum, work_by_columns, touch_same_columns},
};

} // namespace

const OpTable arithmetic_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
