"""The NumPy reference: the definition of every op, and the kernel of last resort.

One module for each kind of op. Each has the op's arithmetic as plain functions over arrays, which name the
C++ function that they mirror, and a thin kernel that binds them to memory. This module is the plugin.
"""

from __future__ import annotations

from dllama_ops.hookspecs import RegisterKernel, hookimpl
from dllama_ops.reference import activation, arithmetic, attention, matmul, moe, movement, norm, rope
from dllama_proto.enums import OpCode, OpQuantType

__all__ = ["PRIORITY", "dllama_register_kernels"]

#: Below any kernel that does not say otherwise.
PRIORITY = -100


@hookimpl
def dllama_register_kernels(register: RegisterKernel) -> None:
    """Offer a kernel for every pair that the C++ program computes, and for those that it should."""
    f32 = OpQuantType.F32_F32_F32
    for code, quant, factory in (
        (OpCode.MERGE_ADD, f32, arithmetic.MergeAdd),
        (OpCode.MERGE_ADD, OpQuantType.Q80_Q80_F32, arithmetic.MergeAdd),
        (OpCode.MERGE_SUM, f32, arithmetic.MergeSum),
        (OpCode.EMBEDDING, f32, movement.Embedding),
        (OpCode.EMBEDDING, OpQuantType.F32_F32_Q80, movement.Embedding),
        (OpCode.INV_RMS, f32, norm.InvRms),
        (OpCode.RMS_NORM, f32, norm.RmsNorm),
        (OpCode.RMS_NORM, OpQuantType.Q80_F32_F32, norm.RmsNorm),
        (OpCode.MATMUL, f32, matmul.Matmul),
        (OpCode.MATMUL, OpQuantType.F32_Q40_F32, matmul.Matmul),
        (OpCode.MATMUL, OpQuantType.Q80_Q40_F32, matmul.Matmul),
        (OpCode.MATMUL, OpQuantType.Q80_F32_F32, matmul.Matmul),
        (OpCode.ROPE, f32, rope.Rope),
        (OpCode.MULTIHEAD_ATT, f32, attention.MultiHeadAtt),
        (OpCode.GELU, f32, activation.Gelu),
        (OpCode.SILU, f32, activation.Silu),
        (OpCode.MUL, f32, arithmetic.Mul),
        (OpCode.SCALE, f32, arithmetic.Scale),
        (OpCode.CAST, f32, movement.Copy),
        (OpCode.CAST, OpQuantType.F32_F32_Q80, movement.Cast),
        (OpCode.CAST, OpQuantType.Q80_Q80_Q80, movement.Copy),
        (OpCode.CAST, OpQuantType.Q80_Q80_F32, movement.Cast),
        (OpCode.REPEAT_Z, f32, movement.RepeatZ),
        (OpCode.REPEAT_Z, OpQuantType.F32_F32_Q80, movement.RepeatZ),
        (OpCode.SHIFT, f32, movement.Shift),
        (OpCode.SOFTMAX, f32, activation.Softmax),
        (OpCode.MOE_GATE, f32, moe.MoeGate),
    ):
        register(code, quant, factory, priority=PRIORITY)
