"""Two tiny configurations of known work, by which links and nodes are measured before a session.

Any node that speaks the protocol runs them, C++ ones too; a pipe of the name ``MARK`` tells a Python worker that
their forwards are no tokens. One measures links, and has no ops at all:

0. partial sums to everybody, as after half a layer: all nodes meet here
1. the same again, ``N_SYNCS`` times
2. logits to the root, as after the last layer

The other measures nodes, which do not wait for each other in it; its segments, in order:

0. nothing; then every worker marks the time: one number to the root
1. small ops, as many as ``N_SMALL_OPS``; mark
2. matmuls of the model's width with its type of weights; mark
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, SyncType
from dllama_proto.floats import n_bytes
from dllama_proto.messages import (
    BufferConfig,
    EmptyConfig,
    InvRmsConfig,
    MatmulConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    OpParams,
    PipeConfig,
    Pointer,
    SegmentConfig,
    Size3D,
    SyncConfig,
    WeightHeader,
)
from dllama_proto.model_header import ModelHeader
from dllama_proto.names import MARK_PIPE, Pipe
from dllama_worker.root.layout.pipes import net_config
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.pieces import WeightPiece

__all__ = ["N_MARKS", "N_SMALL_OPS", "N_SYNCS", "PaceProbe", "make_pace_probe", "make_sync_probe"]

N_MARKS = 3
N_SMALL_OPS = 32
N_SYNCS = 16

_MAX_MATMULS = 256

_X, _QUANTIZED, _INV_RMS, _OUT = range(4)


@dataclass(frozen=True, slots=True)
class PaceProbe:
    """What every node is told; segment 2 has ``n_matmuls``, each with ``matmul_bytes`` of weights."""

    net: NetConfig
    nodes: tuple[NodeConfig, ...]
    n_matmuls: int
    matmul_bytes: int

    def weights(self, node_index: int) -> Iterator[WeightPiece]:
        """Yield a node's weights: zeros, which take as long as any other numbers."""
        for op in self.nodes[node_index].segments[2].ops:
            yield WeightPiece(WeightHeader(op.name, op.index, 0, self.matmul_bytes), None)


def make_pace_probe(header: ModelHeader, n_nodes: int, sync_type: FloatType, max_bytes: int) -> PaceProbe:
    """Lay out the probe of nodes for a model: of its width and types.

    A node gets up to ``max_bytes`` of weights, but no more than it would have of the model.
    """
    net = NetConfig(
        n_batches=1,
        n_nodes=n_nodes,
        pipes=(
            PipeConfig(Size3D.of(FloatType.F32, y=1, x=1), Pipe.POS.name),
            PipeConfig(Size3D.of(FloatType.F32, y=1, x=n_nodes), MARK_PIPE),
        ),
        pre_syncs=(),
    )
    columns, n_matmuls = _matmuls(header, n_nodes, max_bytes)
    rows = {
        "x": Size3D.of(FloatType.F32, y=1, x=header.dim),
        "q_x": Size3D.of(sync_type, y=1, x=header.dim),
        "inv_rms": Size3D.of(FloatType.F32, y=1, x=1),
        "out": Size3D.of(FloatType.F32, y=1, x=columns),
    }
    weight = Size3D.of(header.weight_float_type, y=header.dim, x=columns)
    norm = InvRmsConfig(header.norm_epsilon, 1)
    small = (
        _op(OpCode.INV_RMS, i, _X, _INV_RMS, config=norm) if i % 2 else _op(OpCode.CAST, i, _X, _QUANTIZED)
        for i in range(N_SMALL_OPS)
    )
    matmuls = (
        _op(OpCode.MATMUL, i, _QUANTIZED, _OUT, weight, MatmulConfig(0, 0, 0)) for i in range(n_matmuls)
    )
    mark = (SyncConfig(1, SyncType.NODE_SLICES_EXCEPT_ROOT),)
    node = NodeConfig(
        0,
        tuple(BufferConfig(size, name) for name, size in rows.items()),
        (
            SegmentConfig(mark, ()),
            SegmentConfig(mark, tuple(small)),
            SegmentConfig(mark, tuple(matmuls)),
        ),
    )
    return PaceProbe(net, _for_each(node, n_nodes), n_matmuls, weight.n_bytes)


def make_sync_probe(
    header: ModelHeader, partition: Partition, sync_type: FloatType
) -> tuple[NetConfig, tuple[NodeConfig, ...]]:
    """Lay out the probe of links: the model's pipes and syncs. Of the partition only the node count matters."""
    sums = SegmentConfig((SyncConfig(Pipe.ZQ, SyncType.NODE_SLICES),), ())
    logits = SegmentConfig((SyncConfig(Pipe.LG, SyncType.NODE_SLICES_EXCEPT_ROOT),), ())
    node = NodeConfig(0, (), (sums, *[sums] * N_SYNCS, logits))
    net = net_config(header, partition, sync_type, n_batches=1)
    mark = PipeConfig(Size3D.of(FloatType.F32, y=1, x=1), MARK_PIPE)
    return replace(net, pipes=(*net.pipes, mark)), _for_each(node, partition.n_nodes)


def _for_each(node: NodeConfig, n_nodes: int) -> tuple[NodeConfig, ...]:
    return tuple(replace(node, node_index=node_index) for node_index in range(n_nodes))


def _matmuls(header: ModelHeader, n_nodes: int, max_bytes: int) -> tuple[int, int]:
    """Return how many outputs each matmul has, and how many there are."""
    weights = 3 * header.dim * header.ff_dim * header.n_layers * max(header.n_experts, 1)
    budget = min(max_bytes, n_bytes(header.weight_float_type, weights) // n_nodes)
    row = n_bytes(header.weight_float_type, header.dim)
    unit = gcd(32, header.ff_dim)
    columns = min(header.ff_dim // n_nodes, budget // row) // unit * unit or unit
    return columns, max(1, min(_MAX_MATMULS, budget // (row * columns)))


def _op(
    code: OpCode,
    index: int,
    source: int,
    target: int,
    weight: Size3D | None = None,
    config: OpParams | None = None,
) -> OpConfig:
    return OpConfig(
        code=code,
        index=index,
        weight_size=weight or Size3D.none(),
        name=f"probe_{code.name.lower()}",
        input=Pointer(PointerSource.BUFFER, source, PointerType.BATCH),
        output=Pointer(PointerSource.BUFFER, target, PointerType.BATCH),
        config=config or EmptyConfig(),
    )
