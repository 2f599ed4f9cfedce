"""What one node holds and does: buffers, then segments of syncs and ops."""

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
"""Memory of one node: its size and its name.

Example, from a recording::

    00000000 01000000 20000000 80000000                 float_type=F32, z=1, y=32, x=128
    0010000000000000 0040000000000000 0040000000000000  length=4096, n_bytes=16384, n_bytes_xy=16384
    02000000 7800                                       name="x"

Size in bytes: ``45 + len(name)``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""

SYNC = Record(
    SyncConfig,
    "pipe_index" / PipeIndex,
    "sync_type" / EnumField(SyncType),
)
"""One exchange at the end of a segment.

Example, from a recording::

    04000000 01000000  pipe_index=4, sync_type=NODE_SLICES

Size in bytes: ``8``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""

POINTER = Record(
    Pointer,
    "source" / EnumField(PointerSource),
    "index" / U32,
    "type" / EnumField(PointerType),
)
"""Which memory, and which part of it, an op reads or writes.

Example, from a recording::

    00000000 04000000 02000000  source=PIPE, index=4, type=BATCHED_SLICE

Size in bytes: ``12``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``);
``NnCpuDevice::resolvePointer`` (``nn-cpu.cpp``) finds the memory.
"""

OP_PARAMS = Choice("code", "config_size", OP_CONFIGS)
"""The config of an op: which record it is, follows from the op's code.

Example, from a recording, with ``code=OpCode.MUL``::

    0e000000  multiplier_buffer=14

Size in bytes: ``OP_CONFIGS[code].fixed_size``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""

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
"""One operation, with its config at the end.

Example, from a recording::

    0a000000 00000000                                   code=MUL, index=0
    ffffffff 00000000 00000000 00000000                 float_type=UNK, z=0, y=0, x=0
    0000000000000000 0000000000000000 0000000000000000  length=0, n_bytes=0, n_bytes_xy=0
    04000000                                            config_size=4
    0a000000 626c6f636b5f6d756c00                       name="block_mul"
    01000000 0c000000 01000000                          source=BUFFER, index=12, type=BATCH
    01000000 0c000000 01000000                          source=BUFFER, index=12, type=BATCH
    0e000000                                            multiplier_buffer=14

Size in bytes: ``81 + len(name) + config_size``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""

SEGMENT = Record(
    SegmentConfig,
    "n_syncs" / Count("syncs", limit="n_syncs"),
    "n_ops" / Count("ops", limit="n_ops"),
    "syncs" / Array(this.n_syncs, SYNC),
    "ops" / Array(this.n_ops, OP),
)
"""Ops, then syncs. On the wire the syncs stand first.

Example, a worker's first segment, from a recording::

    01000000 00000000  n_syncs=1, n_ops=0
    02000000 00000000  pipe_index=2, sync_type=WITH_ROOT

Size in bytes: ``8 + 8 * n_syncs + size(ops)``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""

NODE_CONFIG = Record(
    NodeConfig,
    "node_index" / U32,
    "n_buffers" / Count("buffers", limit="n_buffers"),
    "n_segments" / Count("segments", limit="n_segments"),
    "buffers" / Array(this.n_buffers, BUFFER),
    "segments" / Array(this.n_segments, SEGMENT),
)
"""What one node holds and does. It stands between two acks, the root's before it and the worker's answer.

Example, from a recording, shortened to its first buffer and segment::

    01000000 01000000 01000000                          node_index=1, n_buffers=1, n_segments=1
    00000000 01000000 20000000 80000000                 float_type=F32, z=1, y=32, x=128
    0010000000000000 0040000000000000 0040000000000000  length=4096, n_bytes=16384, n_bytes_xy=16384
    02000000 7800                                       name="x"
    01000000 00000000                                   n_syncs=1, n_ops=0
    02000000 00000000                                   pipe_index=2, sync_type=WITH_ROOT

Size in bytes: ``12 + size(buffers) + size(segments)``.

Written by ``NnRootConfigWriter::writeNode``, read by ``NnWorkerConfigReader::readNode`` (``nn-network.cpp``).
"""
