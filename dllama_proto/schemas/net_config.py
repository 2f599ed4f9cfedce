"""What all nodes share: pipes, and which of them are set before the first segment.

Written by ``NnRootConfigWriter::writeNet``, read by ``NnWorkerConfigReader::readNet`` (``nn-network.cpp``).
"""

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

PRE_SYNC = Record(
    PreSyncConfig,
    "pipe_index" / PipeIndex,
)

NET_CONFIG = Record(
    NetConfig,
    "n_batches" / U32,
    "n_nodes" / U32,
    "n_pipes" / Count("pipes", limit="n_pipes"),
    "pipes" / Array(this.n_pipes, PIPE),
    "n_pre_syncs" / Count("pre_syncs", limit="n_pre_syncs"),
    "pre_syncs" / Array(this.n_pre_syncs, PRE_SYNC),
)
