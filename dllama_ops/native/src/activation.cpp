// GELU, SILU and SOFTMAX.
#include "op_table.hpp"
#include "simd.hpp"
#include "softmax.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

DLLAMA_INLINE F silu_alike(F x) {
    return x / (exp_alike(-x) + 1.0f);
}

DLLAMA_INLINE F silu(F x) {
    return x / (exp(-x) + 1.0f);
}

// 0.5 x (1 + tanh(u)) is x / (1 + e^-2u).
DLLAMA_INLINE F gelu(F x) {
    const F u = x * 0.797884560802865356f * (x * x * 0.044715f + 1.0f);
    return x / (exp(u * -2.0f) + 1.0f);
}

// out[x0..x1) = function(in)
template <F (*function)(F)> void apply(float *out, const float *in, uint32_t x0, uint32_t x1) {
    uint32_t x = x0;
    for (; x + kWidth <= x1; x += kWidth)
        store(out + x, function(load(in + x)));
    if (x < x1) {
        const int rest = (int)(x1 - x);
        store_n(out + x, function(load_n(in + x, rest)), rest);
    }
}

// out (z, n_batches, x) = in / (1 + e^-in)
Fault silu_f32(const OpContext &op, const Region &region, Scratch) {
    const uint32_t middle = n_alike(op.output.x);
    const uint32_t x1 = region.x1 < middle ? region.x1 : middle, x2 = region.x0 > middle ? region.x0 : middle;
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            apply<silu_alike>(f32_row(op.output, z, y), f32_row(op.input, z, y), region.x0, x1);
            apply<silu>(f32_row(op.output, z, y), f32_row(op.input, z, y), x2, region.x1);
        }
    return kNoFault;
}

// out (z, n_batches, x) = gelu(in), tanh form
Fault gelu_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++)
            apply<gelu>(f32_row(op.output, z, y), f32_row(op.input, z, y), region.x0, region.x1);
    return kNoFault;
}

// out (z, n_batches, x) = softmax over x of in
Fault softmax_f32(const OpContext &op, const Region &region, Scratch) {
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            const float *in = f32_row(op.input, z, y);
            softmax(f32_row(op.output, z, y), in, op.output.x);
        }
    return kNoFault;
}

void touch_rows(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_row);
    touched.writes(op.output, Access::same_row);
}

constexpr KernelEntry kGelu[] = {{QuantType::f32_f32_f32, gelu_f32}};
constexpr KernelEntry kSilu[] = {{QuantType::f32_f32_f32, silu_f32}};
constexpr KernelEntry kSoftmax[] = {{QuantType::f32_f32_f32, softmax_f32}};

constexpr OpSpec kOps[] = {
    {OpCode::gelu, "gelu", kGelu, {}, check_same_shape, work_by_columns, touch_same_columns},
    {OpCode::silu, "silu", kSilu, {}, check_same_shape, work_by_columns, touch_same_columns},
    {OpCode::softmax, "softmax", kSoftmax, {}, check_same_shape, work_by_rows, touch_rows},
};

} // namespace

const OpTable activation_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
