// Whether an op's shapes and parameters fit each other.
#include "work.hpp"

namespace dllama {

namespace {

// Collects the first thing that is wrong.
class Checker {
public:
    explicit Checker(const OpContext &op) : op_(op) {}

    void require(bool holds, const char *what) {
        if (!holds && wrong_.empty())
            wrong_ = what;
    }

    void require_rows(const Tensor &t, FloatType type, uint32_t z, uint32_t x, const char *what) {
        require_aligned(t);
        require(t.float_type == type && t.z >= z && t.y >= op_.n_batches && t.x >= x && t.data != nullptr, what);
    }

    void require_aligned(const Tensor &t) {
        const uintptr_t all = reinterpret_cast<uintptr_t>(t.data) | uintptr_t(t.y > 1 ? t.y_stride : 0) |
                              uintptr_t(t.z > 1 ? t.z_stride : 0);
        require(all % (t.float_type == FloatType::f32 ? 4 : 2) == 0,
                "memory must be aligned to its numbers, 4 bytes for F32 and 2 for blocks");
    }

    void weight(FloatType type, uint32_t z, uint32_t y, uint32_t x) {
        require(op_.weight.float_type == type && op_.weight.z == z && op_.weight.y == y && op_.weight.x == x &&
                    op_.weight.data != nullptr,
                "the weight's type and shape must fit the input and output");
    }

    void same_shape() {
        require(op_.input.z == op_.output.z && op_.input.x == op_.output.x, "input and output must have one shape");
    }

    std::string result() const { return wrong_; }

private:
    const OpContext &op_;
    std::string wrong_;
};

FloatType input_type(QuantType quant) {
    return quant == QuantType::q80_q80_q80 || quant == QuantType::q80_q80_f32 || quant == QuantType::q80_q40_f32 ||
                   quant == QuantType::q80_f32_f32
               ? FloatType::q80
               : FloatType::f32;
}

FloatType output_type(QuantType quant) {
    return quant == QuantType::q80_q80_q80 || quant == QuantType::f32_f32_q80 || quant == QuantType::f32_q40_q80
               ? FloatType::q80
               : FloatType::f32;
}

void check_matmul(Checker &c, const OpContext &op) {
    const MatmulParams &p = op.params.matmul;
    const uint32_t z = p.n_active_experts > 0 ? p.n_active_experts : 1;
    c.require(op.input.z == z && op.output.z == z, "input and output must have one z for each active expert");
    c.weight(op.quant == QuantType::q80_q40_f32 || op.quant == QuantType::f32_q40_f32 ? FloatType::q40 : FloatType::f32,
             p.n_experts > 0 ? p.n_experts : 1, op.input.x, op.output.x);
    if (p.n_active_experts > 0) {
        c.require(p.n_experts > 0, "active experts need experts");
        c.require_rows(p.active_expert_indexes, FloatType::f32, 1, p.n_active_experts,
                       "expert indexes must be F32 [n_batches][n_active_experts]");
    }
}

void check_rope(Checker &c, const OpContext &op) {
    const RopeParams &p = op.params.rope;
    const uint32_t dim0 = p.is_q ? p.q_dim0 : p.kv_dim0;
    const uint32_t width = p.type == RopeType::falcon ? p.head_dim : p.slice_dim;
    c.require(op.input.x >= dim0 && op.output.x >= dim0, "rows must hold the dimensions to rotate");
    c.require_rows(p.positions, FloatType::f32, 1, 1, "positions must be F32 [n_batches][1]");
    c.require(p.cache.float_type == FloatType::f32 && p.cache.y >= p.seq_len && p.cache.x >= width && p.cache.data,
              "the rope cache must hold seq_len rows");
    c.require(p.head_dim > 0 && p.head_dim % 2 == 0 && dim0 % 2 == 0, "dimensions must come in pairs");
    if (p.type == RopeType::falcon)
        c.require(dim0 % p.head_dim == 0, "rows must be whole heads");
    else
        c.require((uint64_t)dim0 + (p.is_q ? p.q_shift : 0) <= width, "the rope cache must be as wide as the rows");
}

void check_attention(Checker &c, const OpContext &op) {
    const MultiHeadAttParams &p = op.params.multihead_att;
    c.require(p.n_kv_heads > 0 && p.n_heads0 > 0 && p.head_dim > 0 && p.seq_len > 0,
              "heads, their width and the sequence must not be empty");
    c.require(p.n_kv_heads > 0 && p.n_heads % p.n_kv_heads == 0 && p.n_heads >= p.n_kv_heads,
              "heads must be a multiple of KV heads");
    if (!c.result().empty())
        return;
    const uint64_t kv_heads0 = (p.n_heads0 - 1) / (p.n_heads / p.n_kv_heads) + 1;
    c.require(op.output.float_type == FloatType::f32 && op.output.x == (uint64_t)p.n_heads0 * p.head_dim,
              "the output must have all heads");
    c.require(kv_heads0 * p.head_dim <= p.kv_dim0, "the caches must have all KV heads");
    c.require_rows(p.positions, FloatType::f32, 1, 1, "positions must be F32 [n_batches][1]");
    c.require_rows(p.query, FloatType::f32, 1, p.n_heads0 * p.head_dim, "the query must have all heads");
    c.require((uint64_t)p.n_heads0 * p.seq_len <= p.att.x, "att must hold all scores");
    c.require_rows(p.att, FloatType::f32, 1, 1, "att must be F32 [n_batches][n_heads0 * seq_len]");
    for (const Tensor *cache : {&p.key_cache, &p.value_cache})
        c.require(cache->float_type == FloatType::f32 && cache->y >= p.seq_len && cache->x >= p.kv_dim0 && cache->data,
                  "caches must be F32 [seq_len][kv_dim0]");
}

} // namespace

std::string check(const OpContext &op) {
    Checker c(op);
    const Params &params = op.params;
    if (op.code != OpCode::multihead_att) // which reads its query instead
        c.require(op.input.float_type == input_type(op.quant), "the input's type must fit the key");
    c.require(op.output.float_type == output_type(op.quant), "the output's type must fit the key");
    c.require(op.input.data && op.output.data && op.input.x > 0 && op.output.x > 0 && op.input.z > 0 && op.output.z > 0,
              "input and output must not be empty");
    if (op.code != OpCode::multihead_att)
        c.require(op.input.y >= op.n_batches, "the input must have a row for each of the batch");
    if (op.code != OpCode::shift)
        c.require(op.output.y >= op.n_batches, "the output must have a row for each of the batch");
    for (const Tensor *t : {&op.input, &op.output}) {
        c.require_aligned(*t);
        c.require(t->float_type != FloatType::q80 || t->x % kBlockSize == 0, "Q80 rows must be whole blocks");
    }
    if (!c.result().empty())
        return c.result();

    switch (op.code) {
    case OpCode::merge_add:
        c.require(op.input.x % op.output.x == 0, "the input must be whole slices of the output's width");
        break;
    case OpCode::merge_sum: c.require(op.input.x == op.output.x, "input and output must have one width"); break;
    case OpCode::embedding: c.weight(FloatType::f32, 1, op.weight.y, op.output.x); break;
    case OpCode::inv_rms:
        c.require(params.inv_rms.n_columns > 0 && op.input.x % params.inv_rms.n_columns == 0,
                  "the input must be n_columns equal groups");
        c.require(op.output.x >= params.inv_rms.n_columns, "the output must have a value for each group");
        break;
    case OpCode::rms_norm:
        c.same_shape();
        c.require(params.rms_norm.n_columns > 0 && op.input.x % params.rms_norm.n_columns == 0,
                  "the input must be n_columns equal groups");
        if (c.result().empty())
            c.weight(FloatType::f32, 1, 1, op.input.x / params.rms_norm.n_columns);
        c.require_rows(params.rms_norm.inv_rms, FloatType::f32, 1, params.rms_norm.n_columns,
                       "inv_rms must be F32 [n_batches][n_columns]");
        break;
    case OpCode::matmul: check_matmul(c, op); break;
    case OpCode::rope: check_rope(c, op); break;
    case OpCode::multihead_att: check_attention(c, op); break;
    case OpCode::mul:
        c.same_shape();
        c.require_rows(params.mul.multiplier, FloatType::f32, op.output.z, op.output.x,
                       "the multiplier must have the output's shape");
        break;
    case OpCode::scale:
        c.same_shape();
        c.require_rows(params.scale.scale, FloatType::f32, op.output.z, 1, "scale must be F32 [z][n_batches][1]");
        break;
    case OpCode::gelu:
    case OpCode::silu:
    case OpCode::cast:
    case OpCode::softmax: c.same_shape(); break;
    case OpCode::repeat_z:
        c.require(op.input.z == 1 && op.input.x == op.output.x, "the input must be one z of the output's width");
        break;
    case OpCode::shift:
        c.require_rows(params.shift.indexes, FloatType::f32, 1, 1, "indexes must be F32 [n_batches][1]");
        c.require(op.output.x >= op.input.x, "the output must have room for a row of the input's width");
        break;
    case OpCode::moe_gate:
        c.require(params.moe_gate.k > 0 && params.moe_gate.k <= op.input.x && op.output.z == params.moe_gate.k,
                  "k must be 1 .. experts, and the output's z");
        c.require_rows(params.moe_gate.indexes, FloatType::f32, 1, params.moe_gate.k,
                       "indexes must be F32 [n_batches][k]");
        break;
    default: break;
    }
    return c.result();
}

} // namespace dllama
