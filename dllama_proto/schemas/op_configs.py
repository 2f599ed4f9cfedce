"""What each op needs beside its input, output and weight: one raw C struct an op code.

Sources: the ``Nn…OpConfig`` and ``Nn…OpCodeConfig`` structs of ``nn-core.hpp``, copied to the wire as
they lie in memory by ``NnSegmentConfigBuilder::addOp`` (``nn-config-builder.hpp``). None has padding
between fields. An empty struct takes one byte in C++, whose value means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
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
from dllama_proto.schemas._wire import F32, U32, Bytes, EnumField, Record

__all__ = [
    "EMPTY",
    "INV_RMS",
    "MATMUL",
    "MOE_GATE",
    "MUL",
    "MULTIHEAD_ATT",
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
    "inv_rms_buffer" / U32,
    "n_columns" / U32,
)

MATMUL = Record(
    MatmulConfig,
    "n_experts" / U32,
    "n_active_experts" / U32,
    "active_expert_indexes_buffer" / U32,
)

# With rope type FALCON, q_dim_start, q_dim_end, q_shift, kv_dim_start and slice_dim are uninitialised
# memory.
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
    "position_pipe" / U32,
    "rope_cache_buffer" / U32,
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
    "position_pipe" / U32,
    "query_buffer" / U32,
    "key_cache_buffer" / U32,
    "value_cache_buffer" / U32,
    "att_buffer" / U32,
)

MUL = Record(
    MulConfig,
    "multiplier_buffer" / U32,
)

SCALE = Record(
    ScaleConfig,
    "scale_buffer" / U32,
)

SHIFT = Record(
    ShiftConfig,
    "index_pipe" / U32,
)

MOE_GATE = Record(
    MoeGateConfig,
    "k" / U32,
    "norm_topk" / U32,
    "indexes_buffer" / U32,
)

#: The config of every op code.
OP_CONFIGS: Mapping[OpCode, Record[Any]] = MappingProxyType(
    {
        OpCode.MERGE_ADD: EMPTY,
        OpCode.MERGE_SUM: EMPTY,
        OpCode.EMBEDDING: EMPTY,
        OpCode.INV_RMS: INV_RMS,
        OpCode.RMS_NORM: RMS_NORM,
        OpCode.MATMUL: MATMUL,
        OpCode.ROPE: ROPE,
        OpCode.MULTIHEAD_ATT: MULTIHEAD_ATT,
        OpCode.GELU: EMPTY,
        OpCode.SILU: EMPTY,
        OpCode.MUL: MUL,
        OpCode.SCALE: SCALE,
        OpCode.CAST: EMPTY,
        OpCode.REPEAT_Z: EMPTY,
        OpCode.SHIFT: SHIFT,
        OpCode.SOFTMAX: EMPTY,
        OpCode.MOE_GATE: MOE_GATE,
    }
)
