"""What all nodes share: pipes, and which of them are set before the first segment."""

from __future__ import annotations

from dllama_proto.messages import NetConfig, PipeConfig, PreSyncConfig
from dllama_proto.schemas._size import SIZE_3D
from dllama_proto.schemas.wire import U32, Array, Count, PipeIndex, Record, Text, this

__all__ = ["NET_CONFIG", "PIPE", "PRE_SYNC"]

PIPE = Record(
    PipeConfig,
    "size" / SIZE_3D,
    "name" / Text(limit="name_length"),
)
"""Memory that syncs exchange: its size and its name.

Example, from a recording::

    03000000 01000000 20000000 00010000                 float_type=Q80, z=1, y=32, x=256
    0020000000000000 0022000000000000 0022000000000000  length=8192, n_bytes=8704, n_bytes_xy=8704
    03000000 5a5100                                     name="ZQ"

Size in bytes: ``45 + len(name)``.

Written by ``NnRootConfigWriter::writeNet``, read by ``NnWorkerConfigReader::readNet`` (``nn-network.cpp``).
"""

PRE_SYNC = Record(
    PreSyncConfig,
    "pipe_index" / PipeIndex,
)
"""A pipe that is set before the first segment.

Example, from a recording::

    00000000  pipe_index=0

Size in bytes: ``4``.

Written by ``NnRootConfigWriter::writeNet``, read by ``NnWorkerConfigReader::readNet`` (``nn-network.cpp``).
"""

NET_CONFIG = Record(
    NetConfig,
    "n_batches" / U32,
    "n_nodes" / U32,
    "n_pipes" / Count("pipes", limit="n_pipes"),
    "pipes" / Array(this.n_pipes, PIPE),
    "n_pre_syncs" / Count("pre_syncs", limit="n_pre_syncs"),
    "pre_syncs" / Array(this.n_pre_syncs, PRE_SYNC),
)
"""What all nodes share. It stands between two acks, the root's before it and the worker's answer.

Example, from a recording, shortened to its first pipe::

    20000000 02000000 01000000                          n_batches=32, n_nodes=2, n_pipes=1
    00000000 01000000 20000000 01000000                 float_type=F32, z=1, y=32, x=1
    2000000000000000 8000000000000000 8000000000000000  length=32, n_bytes=128, n_bytes_xy=128
    04000000 504f5300                                   name="POS"
    01000000                                            n_pre_syncs=1
    00000000                                            pipe_index=0

Size in bytes: ``16 + size(pipes) + 4 * n_pre_syncs``.

Written by ``NnRootConfigWriter::writeNet``, read by ``NnWorkerConfigReader::readNet`` (``nn-network.cpp``).
"""
