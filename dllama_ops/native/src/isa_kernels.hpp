// The kernels of the instruction set this file is compiled for, one source per group of ops.
#pragma once

#include "kernels.hpp"

namespace dllama {
namespace DLLAMA_ISA {

// norm.cpp
Fault inv_rms_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault rms_norm_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault rms_norm_q80(const OpContext &op, const Region &region, Scratch scratch);
// matmul.cpp
Fault matmul_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault matmul_q80_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault matmul_f32_q40(const OpContext &op, const Region &region, Scratch scratch);
Fault matmul_q80_q40(const OpContext &op, const Region &region, Scratch scratch);
Fault prepare_rows(const OpContext &op, const Region &region, Scratch scratch);
// rope.cpp
Fault rope_f32(const OpContext &op, const Region &region, Scratch scratch);
// attention.cpp
Fault multihead_att_f32(const OpContext &op, const Region &region, Scratch scratch);
// activation.cpp
Fault gelu_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault silu_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault softmax_f32(const OpContext &op, const Region &region, Scratch scratch);
// arithmetic.cpp
Fault mul_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault scale_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault merge_add_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault merge_add_q80(const OpContext &op, const Region &region, Scratch scratch);
Fault merge_sum_f32(const OpContext &op, const Region &region, Scratch scratch);
// movement.cpp
Fault embedding_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault embedding_f32_q80(const OpContext &op, const Region &region, Scratch scratch);
Fault cast_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault cast_f32_q80(const OpContext &op, const Region &region, Scratch scratch);
Fault cast_q80(const OpContext &op, const Region &region, Scratch scratch);
Fault cast_q80_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault repeat_z_f32(const OpContext &op, const Region &region, Scratch scratch);
Fault repeat_z_f32_q80(const OpContext &op, const Region &region, Scratch scratch);
Fault shift_f32(const OpContext &op, const Region &region, Scratch scratch);
// moe.cpp
Fault moe_gate_f32(const OpContext &op, const Region &region, Scratch scratch);

// kernel_set.cpp
const KernelSet &kernel_set();

} // namespace DLLAMA_ISA
} // namespace dllama
