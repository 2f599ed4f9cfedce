#include "work.hpp"

namespace dllama {

namespace {

// Pieces of a row end on cache lines, so that two threads seldom write to the same one.
constexpr uint32_t kLine = 16;

uint32_t blocks_or_line(const OpContext &op) {
    return op.input.float_type == FloatType::q80 || op.output.float_type == FloatType::q80 ? kBlockSize : kLine;
}

uint32_t att_grain(const MultiHeadAttParams &params, uint32_t n_threads) {
    // Whole KV heads, so that a cache is read once for all its query heads, unless that leaves threads idle.
    const uint32_t kv_mul = params.n_heads / params.n_kv_heads;
    const bool enough = params.n_heads0 % kv_mul == 0 && params.n_heads0 / kv_mul >= n_threads;
    return params.head_dim * (enough ? kv_mul : 1);
}

// The prepared input as a tensor of bytes, so that it takes part in the ordering.
Tensor prepared_tensor(const Tensor &input, const unsigned char *prepared) {
    const std::size_t row = std::size_t(input.x / kBlockSize) * 40;
    return {FloatType::unk,
            input.z,
            input.y,
            input.x,
            const_cast<unsigned char *>(prepared),
            std::ptrdiff_t(row * input.y),
            std::ptrdiff_t(row)};
}

} // namespace

Work work_of(const OpContext &op, uint32_t n_threads) {
    const Params &params = op.params;
    switch (op.code) {
    case OpCode::inv_rms: return {op.input.x, op.input.x, true, false, false};
    case OpCode::softmax:
    case OpCode::moe_gate: return {op.input.x, op.input.x, true, false, false};
    case OpCode::matmul: return {op.output.x, kLine, false, op.quant == QuantType::q80_q40_f32, true};
    case OpCode::rope:
        return {params.rope.is_q ? params.rope.q_dim0 : params.rope.kv_dim0,
                params.rope.type == RopeType::falcon ? params.rope.head_dim : kLine, false, false, false};
    case OpCode::multihead_att:
        return {params.multihead_att.n_heads0 * params.multihead_att.head_dim,
                att_grain(params.multihead_att, n_threads), false, false, true};
    case OpCode::shift: // of two rows with one index the later one stays
        return {op.input.x, blocks_or_line(op), false, true, false};
    case OpCode::prepare_rows: return {op.input.x, blocks_or_line(op), false, false, false};
    default: return {op.output.x, blocks_or_line(op), false, false, false};
    }
}

std::vector<IndexUse> index_uses_of(const OpContext &op) {
    const Params &params = op.params;
    switch (op.code) {
    case OpCode::embedding: return {{op.input, 1, op.weight.y, FaultKind::token}};
    case OpCode::rope: return {{params.rope.positions, 1, params.rope.seq_len, FaultKind::position}};
    case OpCode::multihead_att:
        return {{params.multihead_att.positions, 1, params.multihead_att.seq_len, FaultKind::position}};
    case OpCode::shift: return {{params.shift.indexes, 1, op.output.x / op.input.x, FaultKind::cache_row}};
    case OpCode::matmul:
        if (params.matmul.n_active_experts != 0)
            return {{params.matmul.active_expert_indexes, params.matmul.n_active_experts, params.matmul.n_experts,
                     FaultKind::expert}};
        return {};
    default: return {};
    }
}

std::vector<Access> accesses_of(const OpContext &op) {
    const Params &params = op.params;
    const Access in{op.input, Access::same_columns, false}, out{op.output, Access::same_columns, true};
    const Access in_row{op.input, Access::same_row, false}, out_row{op.output, Access::same_row, true};
    switch (op.code) {
    case OpCode::merge_add: return {op.input.x == op.output.x ? in : in_row, out};
    case OpCode::embedding: return {in_row, out};
    case OpCode::inv_rms:
    case OpCode::softmax: return {in_row, out_row};
    case OpCode::rms_norm: return {in, {params.rms_norm.inv_rms, Access::same_row, false}, out};
    case OpCode::matmul: {
        std::vector<Access> list = {{op.input, Access::anything, false}, out};
        if (params.matmul.prepared)
            list.push_back({prepared_tensor(op.input, params.matmul.prepared), Access::anything, false});
        if (params.matmul.n_active_experts != 0)
            list.push_back({params.matmul.active_expert_indexes, Access::anything, false});
        return list;
    }
    case OpCode::rope:
        return {
            in, {params.rope.positions, Access::same_row, false}, {params.rope.cache, Access::anything, false}, out};
    case OpCode::multihead_att: {
        const MultiHeadAttParams &p = params.multihead_att;
        return {{p.query, Access::same_columns, false}, {p.positions, Access::same_row, false},
                {p.key_cache, Access::anything, false}, {p.value_cache, Access::anything, false},
                {p.att, Access::anything, true},        out};
    }
    case OpCode::mul: return {in, {params.mul.multiplier, Access::same_columns, false}, out};
    case OpCode::scale: return {in, {params.scale.scale, Access::same_row, false}, out};
    case OpCode::shift:
        return {in, {params.shift.indexes, Access::same_row, false}, {op.output, Access::anything, true}};
    case OpCode::moe_gate: return {in_row, {params.moe_gate.indexes, Access::same_row, true}, out_row};
    case OpCode::prepare_rows:
        return {in, {prepared_tensor(op.input, params.prepare.prepared), Access::same_columns, true}};
    default: return {in, out};
    }
}

} // namespace dllama
