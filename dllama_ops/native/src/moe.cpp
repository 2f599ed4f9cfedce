// MOE_GATE: which experts a row goes to, and with what weight.
#include "op_table.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// The largest of x that comes after (value, index) in falling order, equals in order of index. Where the rest
// are NaN, whatever index is left over does not matter, as long as it is one.
uint32_t next_largest(const float *x, uint32_t n, bool first, uint32_t last) {
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        const bool is_left = first || x[i] < x[last] || (x[i] == x[last] && i > last);
        if (is_left && (best == n || x[i] > x[best]))
            best = i;
    }
    return best == n ? last : best;
}

// indexes (n_batches, k) = numbers of the k largest of in (n_batches, x); out (k, n_batches, 1) = their values,
// divided by their sum where norm_topk says so
Fault moe_gate_f32(const OpContext &op, const Region &region, Scratch) {
    const MoeGateParams &params = op.params.moe_gate;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float *in = f32_row(op.input, 0, y);
        float *indexes = f32_row(params.indexes, 0, y);
        float total = 0.0f;
        uint32_t expert = 0;
        for (uint32_t k = 0; k < params.k; k++) {
            expert = next_largest(in, op.input.x, k == 0, expert);
            indexes[k] = (float)expert;
            total += in[expert];
        }
        if (!params.norm_topk)
            total = 1.0f;
        for (uint32_t k = 0; k < params.k; k++)
            f32_row(op.output, k, y)[0] = in[(uint32_t)indexes[k]] / total;
    }
    return kNoFault;
}

void check_moe_gate(const OpContext &op, ShapeCheck &check) {
    const MoeGateParams &p = op.params.moe_gate;
    check.require(p.k > 0 && p.k <= op.input.x && op.output.z == p.k, "k must be 1 .. experts, and the output's z");
    check.require_rows(p.indexes, FloatType::f32, 1, p.k, "indexes must be F32 [n_batches][k]");
}

void touch_moe_gate(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_row);
    touched.writes(op.params.moe_gate.indexes, Access::same_row);
    touched.writes(op.output, Access::same_row);
}

constexpr KernelEntry kKernels[] = {{QuantType::f32_f32_f32, moe_gate_f32}};
constexpr ParamField kParams[] = {
    DLLAMA_PARAM(MoeGateParams, k),
    DLLAMA_PARAM(MoeGateParams, norm_topk),
    DLLAMA_PARAM(MoeGateParams, indexes),
};

constexpr OpSpec kOps[] = {
    {OpCode::moe_gate, "moe_gate", kKernels, kParams, check_moe_gate, work_by_rows, touch_moe_gate},
};

} // namespace

const OpTable moe_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
