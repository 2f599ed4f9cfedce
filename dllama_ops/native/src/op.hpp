// Everything about one op of one node, as plain data: the mirror of the Python side's OpContext.
#pragma once

#include "tensor.hpp"

namespace dllama {

// Numbers are those of the wire; codes from 1000 on exist only inside a plan.
enum class OpCode : int32_t {
    merge_add = 0,
    merge_sum = 1,
    embedding = 2,
    inv_rms = 3,
    rms_norm = 4,
    matmul = 5,
    rope = 6,
    multihead_att = 7,
    gelu = 8,
    silu = 9,
    mul = 10,
    scale = 11,
    cast = 12,
    repeat_z = 13,
    shift = 14,
    softmax = 15,
    moe_gate = 16,
    prepare_rows = 1000, // Q80 rows into the form that matmul reads
};

// Whether plans add such ops by themselves, and nobody else does.
static inline bool is_internal(OpCode code) {
    return int32_t(code) >= 1000;
}

enum class QuantType : int32_t {
    f32_f32_f32 = 0,
    f32_q40_f32 = 1,
    f32_q40_q80 = 2,
    f32_f32_q80 = 3,
    q80_q80_q80 = 4,
    q80_q80_f32 = 5,
    q80_q40_f32 = 6,
    q80_f32_f32 = 7,
};

enum class RopeType : int32_t { llama = 0, falcon = 1, llama3_1 = 2 };

struct InvRmsParams {
    float epsilon;
    uint32_t n_columns;
};

struct RmsNormParams {
    uint32_t n_columns;
    Tensor inv_rms; // F32 [1][n_batches][>= n_columns]
};

struct MatmulParams {
    uint32_t n_experts, n_active_experts; // both 0 without experts
    Tensor active_expert_indexes;         // F32 [1][n_batches][n_active_experts]
};

struct RopeParams {
    RopeType type;
    bool is_q;
    Tensor positions; // F32 [1][n_batches][1]
    Tensor cache;     // F32 [1][seq_len][slice_dim, or head_dim with falcon]
    uint32_t q_dim0, kv_dim0, q_shift, slice_dim, seq_len, head_dim;
};

struct MultiHeadAttParams {
    uint32_t n_heads, n_heads0, n_kv_heads, head_dim, seq_len, kv_dim0;
    Tensor positions;              // F32 [1][n_batches][1]
    Tensor query;                  // F32 [1][n_batches][n_heads0 * head_dim]
    Tensor key_cache, value_cache; // F32 [1][seq_len][kv_dim0]
    Tensor att;                    // F32 [1][n_batches][n_heads0 * seq_len], scratch
};

struct MulParams {
    Tensor multiplier; // F32 [z][n_batches][x]
};

struct ScaleParams {
    Tensor scale; // F32 [z][n_batches][1]
};

struct ShiftParams {
    Tensor indexes; // F32 [1][n_batches][1]
};

struct MoeGateParams {
    uint32_t k;
    bool norm_topk;
    Tensor indexes; // F32 [1][n_batches][k]
};

struct PrepareParams {
    uint32_t group_rows; // that are laid side by side; 1: each on its own, to be gathered by expert later
};

union Params {
    InvRmsParams inv_rms;
    RmsNormParams rms_norm;
    MatmulParams matmul;
    RopeParams rope;
    MultiHeadAttParams multihead_att;
    MulParams mul;
    ScaleParams scale;
    ShiftParams shift;
    MoeGateParams moe_gate;
    PrepareParams prepare;
};

// A weight as its kernel reads it: [z][x][y] values, raw or packed into tiles (see pack.hpp).
struct WeightView {
    FloatType float_type; // unk: the op has none
    uint32_t z, y, x;
    const unsigned char *data;
    size_t z_stride; // bytes from one expert to the next
};

struct OpContext {
    OpCode code;
    QuantType quant;
    uint32_t n_batches;
    Tensor input, output;
    WeightView weight;
    Params params;
    unsigned char *prepared; // set by the plan: the input as another op left it for this one, or null
};

} // namespace dllama
