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
"""The config of an op that needs none: one byte of any value.

Example, from a recording::

    00  padding

Size in bytes: ``1``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``), but
by no kernel.
"""

INV_RMS = Record(
    InvRmsConfig,
    "epsilon" / F32,
    "n_columns" / U32,
)
"""The config of INV_RMS.

Example, from a recording::

    acc52737 01000000  epsilon=1e-05, n_columns=1

Size in bytes: ``8``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``invRmsForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""

RMS_NORM = Record(
    RmsNormConfig,
    "inv_rms_buffer" / BufferIndex,
    "n_columns" / U32,
)
"""The config of RMS_NORM.

Example, from a recording::

    08000000 01000000  inv_rms_buffer=8, n_columns=1

Size in bytes: ``8``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``rmsNormForward_F32_F32_F32`` and
``rmsNormForward_Q80_F32_F32`` (``nn-cpu-ops.cpp``).
"""

MATMUL = Record(
    MatmulConfig,
    "n_experts" / U32,
    "n_active_experts" / U32,
    "active_expert_indexes_buffer" / BufferIndex,
)
"""The config of MATMUL. Without experts all is 0, but for the buffer, which then means nothing.

Example, from a recording, with experts::

    08000000 02000000 10000000  n_experts=8, n_active_experts=2, active_expert_indexes_buffer=16

Size in bytes: ``12``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``matmulForward_F32_F32_F32`` and
``matmulForward_Q80_Q40_F32`` (``nn-cpu-ops.cpp``).
"""

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
"""Which part of the heads a node rotates: part of the config of ROPE.

Example, from a recording::

    80000000 80000000 00010000 40000000                 q_dim0=128, q_dim_start=128, q_dim_end=256, q_shift=64
    80000000 40000000 40000000 c0000000                 kv_dim=128, kv_dim0=64, kv_dim_start=64, slice_dim=192
    40000000 20000000 04000000 0024f448                 seq_len=64, head_dim=32, n_kv_heads=4, rope_theta=500000.0
    00000000 01000000 40000000 c0000000                 float_type=F32, z=1, y=64, x=192
    0030000000000000 00c0000000000000 00c0000000000000  length=12288, n_bytes=49152, n_bytes_xy=49152

Size in bytes: ``88``.

Written by ``sliceRope`` (``nn-core.cpp``), read by ``ropeForward_F32_F32`` (``nn-cpu-ops.cpp``) and
``fullfillRopeCache`` (``nn-core.cpp``).
"""

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
"""The config of ROPE. With FALCON five fields of the slice are uninitialised memory.

Example, from a recording::

    02000000 01000000 00000000 09000000                 type=LLAMA3_1, is_q=1, position_pipe=0, rope_cache_buffer=9
    00000041 0000803f                                   scaling_factor=8.0, low_freq_factor=1.0
    00008040 40000000                                   high_freq_factor=4.0, orig_max_seq_len=64
    80000000 80000000 00010000 40000000                 q_dim0=128, q_dim_start=128, q_dim_end=256, q_shift=64
    80000000 40000000 40000000 c0000000                 kv_dim=128, kv_dim0=64, kv_dim_start=64, slice_dim=192
    40000000 20000000 04000000 0024f448                 seq_len=64, head_dim=32, n_kv_heads=4, rope_theta=500000.0
    00000000 01000000 40000000 c0000000                 float_type=F32, z=1, y=64, x=192
    0030000000000000 00c0000000000000 00c0000000000000  length=12288, n_bytes=49152, n_bytes_xy=49152

Size in bytes: ``120``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``ropeForward_F32_F32`` (``nn-cpu-ops.cpp``) and
``fullfillRopeCache`` (``nn-core.cpp``).
"""

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
"""The config of MULTIHEAD_ATT.

Example, from a recording::

    04000000 02000000 04000000 20000000  n_heads=4, n_heads0=2, n_kv_heads=4, head_dim=32
    40000000 40000000 40000000 00000000  seq_len=64, q_slice_d0=64, kv_dim0=64, position_pipe=0
    05000000 17000000 18000000           query_buffer=5, key_cache_buffer=23, value_cache_buffer=24
    0a000000                             att_buffer=10

Size in bytes: ``48``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``multiHeadAttForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""

MUL = Record(
    MulConfig,
    "multiplier_buffer" / BufferIndex,
)
"""The config of MUL.

Example, from a recording::

    0e000000  multiplier_buffer=14

Size in bytes: ``4``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``mulForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""

SCALE = Record(
    ScaleConfig,
    "scale_buffer" / BufferIndex,
)
"""The config of SCALE.

Example, from a recording::

    16000000  scale_buffer=22

Size in bytes: ``4``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``scaleForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""

SHIFT = Record(
    ShiftConfig,
    "index_pipe" / PipeIndex,
)
"""The config of SHIFT.

Example, from a recording::

    00000000  index_pipe=0

Size in bytes: ``4``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``shiftForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""

MOE_GATE = Record(
    MoeGateConfig,
    "k" / U32,
    "norm_topk" / U32,
    "indexes_buffer" / BufferIndex,
)
"""The config of MOE_GATE.

Example, from a recording::

    02000000 01000000 10000000  k=2, norm_topk=1, indexes_buffer=16

Size in bytes: ``12``.

Written by ``buildLlmNet`` (``llm.cpp``), read by ``moeGateForward_F32_F32`` (``nn-cpu-ops.cpp``).
"""


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
