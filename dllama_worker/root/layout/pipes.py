"""The pipes, which all nodes have alike."""

from __future__ import annotations

from dllama_proto.enums import FloatType
from dllama_proto.messages import NetConfig, PipeConfig, PreSyncConfig, Size3D
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import Pipe
from dllama_worker.sharding.partition import Partition

__all__ = ["net_config"]


def net_config(
    header: ModelHeader, partition: Partition, sync_type: FloatType, n_batches: int
) -> NetConfig:
    """Return what all nodes share; positions are set before the first segment."""
    n_nodes = partition.n_nodes
    widths = {
        Pipe.POS: (FloatType.F32, 1),
        Pipe.TOK: (FloatType.F32, 1),
        Pipe.X: (FloatType.F32, header.dim),
        Pipe.LG: (FloatType.F32, partition.n_logits),
        Pipe.ZQ: (sync_type, header.dim * n_nodes),
    }
    if header.has_qkv_bias:
        widths[Pipe.ZERO] = (FloatType.F32, 1)
    return NetConfig(
        n_batches=n_batches,
        n_nodes=n_nodes,
        pipes=tuple(
            PipeConfig(Size3D.of(float_type, y=n_batches, x=width), pipe.name)
            for pipe, (float_type, width) in widths.items()
        ),
        pre_syncs=(PreSyncConfig(Pipe.POS),),
    )
