"""What one node holds and does: buffers, then segments of syncs and ops.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode``
(``nn-network.cpp``).
"""

from __future__ import annotations

from dllama_proto.enums import OpCode, PointerSource, PointerType, SyncType
from dllama_proto.messages import BufferConfig, NodeConfig, OpConfig, Pointer, SegmentConfig, SyncConfig
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.op_configs import OP_CONFIGS, OPS
from dllama_proto.schemas.wire import (
    U32,
    Array,
    Choice,
    Count,
    EnumField,
    PipeIndex,
    Record,
    SizeOf,
    Text,
    this,
)

__all__ = ["BUFFER", "NODE_CONFIG", "OP", "OP_PARAMS", "POINTER", "SEGMENT", "SYNC"]

BUFFER = Record(
    BufferConfig,
    "size" / SIZE_3D,
    "name" / Text(limit="name_length"),
)

SYNC = Record(
    SyncConfig,
    "pipe_index" / PipeIndex,
    "sync_type" / EnumField(SyncType),
)

POINTER = Record(
    Pointer,
    "source" / EnumField(PointerSource),
    "index" / U32,
    "type" / EnumField(PointerType),
)

OP_PARAMS = Choice("code", "config_size", OP_CONFIGS)

OP = Record(
    OpConfig,
    "code" / EnumField(OpCode, OPS.codes),
    "index" / U32,
    "weight_size" / SIZE_3D,
    "config_size" / SizeOf(OP_PARAMS),
    "name" / Text(limit="name_length"),
    "input" / POINTER,
    "output" / POINTER,
    "config" / OP_PARAMS,
)

SEGMENT = Record(
    SegmentConfig,
    "n_syncs" / Count("syncs", limit="n_syncs"),
    "n_ops" / Count("ops", limit="n_ops"),
    "syncs" / Array(this.n_syncs, SYNC),
    "ops" / Array(this.n_ops, OP),
)

NODE_CONFIG = Record(
    NodeConfig,
    "node_index" / U32,
    "n_buffers" / Count("buffers", limit="n_buffers"),
    "n_segments" / Count("segments", limit="n_segments"),
    "buffers" / Array(this.n_buffers, BUFFER),
    "segments" / Array(this.n_segments, SEGMENT),
)
