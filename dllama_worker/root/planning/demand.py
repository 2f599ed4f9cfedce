"""What a partition asks of every node and link: memory, bytes to compute with, bytes to exchange.

Everything is counted from the configurations that nodes would be sent; nothing here is measured or guessed.
All layers are alike, so one is laid out and counted as often as the model has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dllama_proto.enums import FloatType, OpCode, SyncType
from dllama_proto.floats import n_bytes
from dllama_proto.messages import (
    MatmulConfig,
    MultiHeadAttConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    SegmentConfig,
)
from dllama_proto.model_header import ModelHeader
from dllama_worker.root.layout import build_layout
from dllama_worker.sharding.partition import Partition

__all__ = ["Demand", "NodeDemand", "SegmentWork", "SyncDemand", "count_demand"]

_F32_BYTES = 4

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SegmentWork:
    """What one node computes in one segment for one token.

    ``weight_bytes`` are read once; of the key and value caches ``position_bytes`` for every position so far.
    """

    weight_bytes: int
    position_bytes: int
    n_ops: int


@dataclass(frozen=True, slots=True)
class NodeDemand:
    """What one node holds, in bytes, and computes, by segment; ``buffers`` are those without the caches."""

    weights: int
    buffers: int
    kv_cache: int
    pipes: int
    segments: tuple[SegmentWork, ...]

    @property
    def memory(self) -> int:
        """All bytes that the node holds."""
        return self.weights + self.buffers + self.kv_cache + self.pipes


@dataclass(frozen=True, slots=True)
class SyncDemand:
    """One sync for one token: ``link_bytes`` go over each link that it uses, in each direction it uses."""

    sync_type: SyncType
    n_nodes: int
    link_bytes: int

    @property
    def busiest_bytes(self) -> int:
        """Bytes in one direction at the node that moves most: to, or from, every other."""
        return self.link_bytes * (self.n_nodes - 1)

    @property
    def busiest_messages(self) -> int:
        """Messages that this node sends and receives."""
        both = 2 if self.sync_type is SyncType.NODE_SLICES else 1
        return both * (self.n_nodes - 1)

    @property
    def all_bytes(self) -> int:
        """Bytes that go over all links together."""
        senders = self.n_nodes if self.sync_type is SyncType.NODE_SLICES else 1
        return senders * self.busiest_bytes


@dataclass(frozen=True, slots=True)
class Demand:
    """What a cluster needs: its nodes, the root first, and the syncs at the end of each segment."""

    nodes: tuple[NodeDemand, ...]
    syncs: tuple[tuple[SyncDemand, ...], ...]

    def lacking(self, memory: Sequence[int] | None) -> list[int]:
        """Return the nodes that need more than the bytes they have; what is not stated (None) suffices."""
        if memory is None:
            return []
        pairs = zip(self.nodes, memory, strict=True)
        return [node for node, (need, available) in enumerate(pairs) if need.memory > available]

    def links(self) -> dict[str, int]:
        """Return what each kind of link carries for one token, by direction; control packets come on top."""
        by_type = dict.fromkeys(SyncType, 0)
        for segment in self.syncs:
            for sync in segment:
                by_type[sync.sync_type] += sync.link_bytes
        slices = by_type[SyncType.NODE_SLICES]
        kinds = {
            "root to worker": by_type[SyncType.WITH_ROOT] + slices,
            "worker to root": by_type[SyncType.NODE_SLICES_EXCEPT_ROOT] + slices,
            "worker to worker": slices,
        }
        return dict(list(kinds.items())[: {1: 0, 2: 2}.get(len(self.nodes), 3)])


def count_demand(
    header: ModelHeader, partition: Partition, sync_type: FloatType, n_batches: int = 32
) -> Demand:
    """Count what a model, shared out so, asks for. Raises UsageError where float types do not go together."""
    layout = build_layout(replace(header, n_layers=1), partition, sync_type, n_batches)
    return Demand(
        tuple(_node_demand(layout.net, node, header.n_layers) for node in layout.nodes),
        _all_layers(
            [
                tuple(_sync_demand(layout.net, sync.pipe_index, sync.sync_type) for sync in segment.syncs)
                for segment in layout.nodes[0].segments
            ],
            header.n_layers,
        ),
    )


def _all_layers(segments: Sequence[_T], n_layers: int) -> tuple[_T, ...]:
    """Repeat what lies between the first segment and the last for every layer."""
    first, *layer, last = segments
    return (first, *(layer * n_layers), last)


def _node_demand(net: NetConfig, node: NodeConfig, n_layers: int) -> NodeDemand:
    weights = _all_layers([sum(op.weight_size.n_bytes for op in s.ops) for s in node.segments], n_layers)
    caches = sum(buffer.size.n_bytes for buffer in node.buffers if buffer.name in ("k", "v"))
    buffers = sum(buffer.size.n_bytes for buffer in node.buffers)
    return NodeDemand(
        weights=sum(weights),
        buffers=buffers - caches,
        kv_cache=caches * n_layers,
        pipes=sum(pipe.size.n_bytes for pipe in net.pipes),
        segments=_all_layers([_work(segment) for segment in node.segments], n_layers),
    )


def _work(segment: SegmentConfig) -> SegmentWork:
    attentions = [op.config for op in segment.ops if isinstance(op.config, MultiHeadAttConfig)]
    return SegmentWork(
        weight_bytes=sum(map(_read_bytes, segment.ops)),
        position_bytes=sum(2 * _F32_BYTES * config.kv_dim0 for config in attentions),
        n_ops=len(segment.ops),
    )


def _read_bytes(op: OpConfig) -> int:
    """Return the bytes of an op's weight that one token needs: a row of an embedding, the active experts."""
    if op.code is OpCode.EMBEDDING:
        return op.weight_size.n_bytes // op.weight_size.y
    if isinstance(op.config, MatmulConfig) and op.config.n_experts:
        return op.weight_size.n_bytes * op.config.n_active_experts // op.config.n_experts
    return op.weight_size.n_bytes


def _sync_demand(net: NetConfig, pipe_index: int, sync_type: SyncType) -> SyncDemand:
    size = net.pipes[pipe_index].size
    row = n_bytes(size.float_type, size.x)
    return SyncDemand(
        sync_type, net.n_nodes, row if sync_type is SyncType.WITH_ROOT else row // net.n_nodes
    )
