// INV_RMS and RMS_NORM.
#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

float sum_of_squares(const float *x, uint32_t n) {
    Eight sums = eight_zeros();
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        add_products(sums, x + i, x + i);
    float s = total(sums);
    for (; i < n; i++)
        s += x[i] * x[i];
    return s;
}

// out (n_batches, n_columns) = 1 / sqrt(mean(x^2) + epsilon) of each of n_columns equal groups of in (n_batches, x)
Fault inv_rms_f32(const OpContext &op, const Region &region, Scratch) {
    const InvRmsParams &params = op.params.inv_rms;
    const uint32_t width = op.input.x / params.n_columns;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float *in = f32_row(op.input, 0, y);
        float *out = f32_row(op.output, 0, y);
        for (uint32_t c = 0; c < params.n_columns; c++)
            out[c] =
                1.0f / __builtin_sqrtf(sum_of_squares(in + (size_t)c * width, width) / (float)width + params.epsilon);
    }
    return kNoFault;
}

// out (n_batches, x) = in (n_batches, x) * inv_rms (n_batches, n_columns) by group * weight (x / n_columns)
Fault rms_norm_f32(const OpContext &op, const Region &region, Scratch) {
    const RmsNormParams &params = op.params.rms_norm;
    const float *weight = (const float *)op.weight.data;
    const uint32_t width = op.weight.x;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float *in = f32_row(op.input, 0, y);
        const float *inv_rms = f32_row(params.inv_rms, 0, y);
        float *out = f32_row(op.output, 0, y);
        for (uint32_t x = region.x0; x < region.x1;) {
            const uint32_t group = x / width, start = group * width;
            const uint32_t end = start + width < region.x1 ? start + width : region.x1;
            const float s = inv_rms[group];
            for (; x + kWidth <= end; x += kWidth)
                store(out + x, load(in + x) * s * load(weight + (x - start)));
            for (; x < end; x++)
                out[x] = in[x] * s * weight[x - start];
        }
    }
    return kNoFault;
}

// The same from Q80 blocks.
Fault rms_norm_q80(const OpContext &op, const Region &region, Scratch) {
    const RmsNormParams &params = op.params.rms_norm;
    const float *weight = (const float *)op.weight.data;
    const uint32_t width = op.weight.x;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const BlockQ80 *in = q80_row(op.input, 0, y);
        const float *inv_rms = f32_row(params.inv_rms, 0, y);
        float *out = f32_row(op.output, 0, y);
        for (uint32_t x = region.x0; x < region.x1; x++) {
            // Groups may be cut anywhere, so one value at a time where a block is not inside one group.
            const uint32_t group = x / width, start = group * width;
            const BlockQ80 &block = in[x / kBlockSize];
            const float s = inv_rms[group] * f16_to_f32(block.d);
            if (x % kBlockSize == 0 && x + kBlockSize <= region.x1 && x + kBlockSize <= start + width) {
                for (uint32_t i = 0; i < kBlockSize; i += kWidth)
                    store(out + x + i, load_i8(block.qs + i) * s * load(weight + (x - start) + i));
                x += kBlockSize - 1;
            } else {
                out[x] = (float)block.qs[x % kBlockSize] * s * weight[x - start];
            }
        }
    }
    return kNoFault;
}

// ---- specs

void check_inv_rms(const OpContext &op, ShapeCheck &check) {
    const uint32_t n_columns = op.params.inv_rms.n_columns;
    check.require(n_columns > 0 && op.input.x % n_columns == 0, "the input must be n_columns equal groups");
    check.require(op.output.x >= n_columns, "the output must have a value for each group");
}

void touch_inv_rms(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_row);
    touched.writes(op.output, Access::same_row);
}

void check_rms_norm(const OpContext &op, ShapeCheck &check) {
    const RmsNormParams &p = op.params.rms_norm;
    check.require_same_shape();
    check.require(p.n_columns > 0 && op.input.x % p.n_columns == 0, "the input must be n_columns equal groups");
    if (check.wrong() == nullptr)
        check.require_weight(FloatType::f32, 1, 1, op.input.x / p.n_columns);
    check.require_rows(p.inv_rms, FloatType::f32, 1, p.n_columns, "inv_rms must be F32 [n_batches][n_columns]");
}

void touch_rms_norm(const OpContext &op, Accesses &touched) {
    touch_same_columns(op, touched);
    touched.reads(op.params.rms_norm.inv_rms, Access::same_row);
}

constexpr KernelEntry kInvRms[] = {{QuantType::f32_f32_f32, inv_rms_f32}};
constexpr ParamField kInvRmsParams[] = {DLLAMA_PARAM(InvRmsParams, epsilon), DLLAMA_PARAM(InvRmsParams, n_columns)};

constexpr KernelEntry kRmsNorm[] = {
    {QuantType::f32_f32_f32, rms_norm_f32},
    {QuantType::q80_f32_f32, rms_norm_q80},
};
constexpr ParamField kRmsNormParams[] = {DLLAMA_PARAM(RmsNormParams, n_columns), DLLAMA_PARAM(RmsNormParams, inv_rms)};

constexpr OpSpec kOps[] = {
    {OpCode::inv_rms, "inv_rms", kInvRms, kInvRmsParams, check_inv_rms, work_by_rows, touch_inv_rms},
    {OpCode::rms_norm, "rms_norm", kRmsNorm, kRmsNormParams, check_rms_norm, work_by_columns, touch_rms_norm},
};

} // namespace

const OpTable norm_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
