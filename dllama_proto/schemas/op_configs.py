"""Every op on the wire: what it needs beside its input, output and weight, one raw C struct an op code.

Sources: the ``Nn…OpConfig`` and ``Nn…OpCodeConfig`` structs of ``nn-core.hpp``, copied to the wire as
they lie in memory by ``NnSegmentConfigBuilder::addOp`` (``nn-config-builder.hpp``). None has padding
between fields. An empty struct takes one byte in C++, whose value means nothing.

Schemas come first, then :data:`OPS`: one :class:`~dllama_proto.schemas.op_spec.OpConfigSpec` an op.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dllama_proto.enums import OpCode, RopeType
from dllama_proto.messages import (
    EmptyConfig,
    InvRmsConfig,
    MatmulConfig,
    MoeGateConfig,
    MulConfig,
    MultiHeadAttConfig,
    RmsNormConfig,
    RopeConfig,
    RopeSlice,
    ScaleConfig,
    ShiftConfig,
)
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.op_spec import OpConfigRegistry, OpConfigSpec
from dllama_proto.schemas.wire import F32, U32, BufferIndex, Bytes, EnumField, PipeIndex, Record

__all__ = [
    "EMPTY",
    "INV_RMS",
    "MATMUL",
    "MOE_GATE",
    "MUL",
    "MULTIHEAD_ATT",
    "OPS",
    "OP_CONFIGS",
    "RMS_NORM",
    "ROPE",
    "ROPE_SLICE",
    "SCALE",
    "SHIFT",
]

EMPTY = Record(
    EmptyConfig,
    "padding" / Bytes(1),
)

INV_RMS = Record(
    InvRmsConfig,
    "epsilon" / F32,
    "n_columns" / U32,
)

RMS_NORM = Record(
    RmsNormConfig,
    "inv_rms_buffer" / BufferIndex,
    "n_columns" / U32,
)

MATMUL = Record(
    MatmulConfig,
    "n_experts" / U32,
    "n_active_experts" / U32,
    "active_expert_indexes_buffer" / BufferIndex,
)

ROPE_SLICE = Record(
    RopeSlice,
    "q_dim0" / U32,
    "q_dim_start" / U32,
    "q_dim_end" / U32,
    "q_shift" / U32,
    "kv_dim" / U32,
    "kv_dim0" / U32,
    "kv_dim_start" / U32,
    "slice_dim" / U32,
    "seq_len" / U32,
    "head_dim" / U32,
    "n_kv_heads" / U32,
    "rope_theta" / F32,
    "cache_size" / SIZE_3D,
)

ROPE = Record(
    RopeConfig,
    "type" / EnumField(RopeType),
    "is_q" / U32,
    "position_pipe" / PipeIndex,
    "rope_cache_buffer" / BufferIndex,
    "scaling_factor" / F32,
    "low_freq_factor" / F32,
    "high_freq_factor" / F32,
    "orig_max_seq_len" / U32,
    "slice" / ROPE_SLICE,
)

MULTIHEAD_ATT = Record(
    MultiHeadAttConfig,
    "n_heads" / U32,
    "n_heads0" / U32,
    "n_kv_heads" / U32,
    "head_dim" / U32,
    "seq_len" / U32,
    "q_slice_d0" / U32,
    "kv_dim0" / U32,
    "position_pipe" / PipeIndex,
    "query_buffer" / BufferIndex,
    "key_cache_buffer" / BufferIndex,
    "value_cache_buffer" / BufferIndex,
    "att_buffer" / BufferIndex,
)

MUL = Record(
    MulConfig,
    "multiplier_buffer" / BufferIndex,
)

SCALE = Record(
    ScaleConfig,
    "scale_buffer" / BufferIndex,
)

SHIFT = Record(
    ShiftConfig,
    "index_pipe" / PipeIndex,
)

MOE_GATE = Record(
    MoeGateConfig,
    "k" / U32,
    "norm_topk" / U32,
    "indexes_buffer" / BufferIndex,
)


# Ops --------------------------------------------------------------------------------------------------


def _padding(config: EmptyConfig) -> Collection[str]:
    return ("padding",)


def _indexes_without_experts(config: MatmulConfig) -> Collection[str]:
    """C++ looks at the indexes of experts only where there are active ones (``matmulForward_…``)."""
    return () if config.n_active_experts else ("active_expert_indexes_buffer",)


def _slice_of_falcon(config: RopeConfig) -> Collection[str]:
    """``sliceRope`` (``nn-core.cpp``) sets these for the other types only."""
    if config.type is not RopeType.FALCON:
        return ()
    names = ("q_dim_start", "q_dim_end", "q_shift", "kv_dim_start", "slice_dim")
    return [f"slice.{name}" for name in names]


def _without_config(code: OpCode) -> OpConfigSpec[EmptyConfig]:
    return OpConfigSpec(code, EMPTY, undefined=_padding)


#: Every op that this process can read; grows by ``OPS.register``.
OPS = OpConfigRegistry(
    (
        _without_config(OpCode.MERGE_ADD),
        _without_config(OpCode.MERGE_SUM),
        _without_config(OpCode.EMBEDDING),
        OpConfigSpec(OpCode.INV_RMS, INV_RMS),
        OpConfigSpec(OpCode.RMS_NORM, RMS_NORM),
        OpConfigSpec(OpCode.MATMUL, MATMUL, unread=_indexes_without_experts),
        OpConfigSpec(OpCode.ROPE, ROPE, undefined=_slice_of_falcon),
        OpConfigSpec(OpCode.MULTIHEAD_ATT, MULTIHEAD_ATT),
        _without_config(OpCode.GELU),
        _without_config(OpCode.SILU),
        OpConfigSpec(OpCode.MUL, MUL),
        OpConfigSpec(OpCode.SCALE, SCALE),
        _without_config(OpCode.CAST),
        _without_config(OpCode.REPEAT_Z),
        OpConfigSpec(OpCode.SHIFT, SHIFT),
        _without_config(OpCode.SOFTMAX),
        OpConfigSpec(OpCode.MOE_GATE, MOE_GATE),
    )
)

#: The config of every op code in :data:`OPS`, as those are now.
OP_CONFIGS: Mapping[OpCode, Record[Any]] = OPS.schemas
