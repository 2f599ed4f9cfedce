// The ops of the instruction set this file is compiled for, as each source file offers them.
#pragma once

#include "ggml_blocks.hpp"
#include "op_spec.hpp"

namespace dllama {
namespace DLLAMA_ISA {

extern const OpTable activation_ops;
extern const OpTable arithmetic_ops;
extern const OpTable attention_ops;
extern const OpTable matmul_ops;
extern const OpTable moe_ops;
extern const OpTable movement_ops;
extern const OpTable norm_ops;
extern const OpTable rope_ops;

// ggml_blocks.cpp
extern const BlockFormats block_formats;

// kernel_set.cpp
const KernelSet &kernel_set();

} // namespace DLLAMA_ISA
} // namespace dllama
