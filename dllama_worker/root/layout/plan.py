"""Puts the segments of every node together, and says which float types go together."""

from __future__ import annotations

from dataclasses import dataclass

from dllama_proto.enums import FloatType
from dllama_proto.floats import SYNC_TYPES
from dllama_proto.messages import NetConfig, NodeConfig, SegmentConfig
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.root.layout.attention import attention_segment
from dllama_worker.root.layout.buffers import lay_buffers
from dllama_worker.root.layout.ends import first_segment, last_segment
from dllama_worker.root.layout.feed_forward import feed_forward_segment
from dllama_worker.root.layout.pipes import net_config
from dllama_worker.root.layout.shape import NodeShape
from dllama_worker.sharding.partition import Partition

__all__ = ["Layout", "build_layout", "check_float_types", "sync_type_of"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What every node is told: the net, and each node's own config, the root's first."""

    net: NetConfig
    nodes: tuple[NodeConfig, ...]


def build_layout(
    header: ModelHeader, partition: Partition, sync_type: FloatType, n_batches: int = 32
) -> Layout:
    """Lay a model out over the nodes of a partition (C++ ``buildLlmNet``).

    With the even partition, encodes to what the C++ root sends, but for its uninitialised fields and
    padding; with F32 it lays out experts too, which the C++ root cannot run. Raises UsageError where the
    float types of weights and sync do not go together.
    """
    check_float_types(header.weight_float_type, sync_type)
    shapes = [
        NodeShape.of(header, partition, node, sync_type, n_batches) for node in range(partition.n_nodes)
    ]
    net = net_config(header, partition, sync_type, n_batches)
    return Layout(net, tuple(_node_config(shape) for shape in shapes))


def sync_type_of(weight_type: FloatType) -> FloatType:
    """Return the sync type that goes with a type of weights.

    Raises UsageError for weights that no node computes with.
    """
    needed = SYNC_TYPES.get(weight_type)
    if needed is None:
        raise UsageError(
            f"the model has {weight_type.name.lower()} weights, which no node computes with: convert it to "
            "q40 or f32"
        )
    return needed


def check_float_types(weight_type: FloatType, sync_type: FloatType) -> None:
    """Refuse weights that no node computes with, and a sync type that does not go with them.

    Raises UsageError saying which type would.
    """
    needed = sync_type_of(weight_type)
    if sync_type is not needed:
        raise UsageError(
            f"{weight_type.name.lower()} weights go with --buffer-float-type {needed.name.lower()}, not "
            f"{sync_type.name.lower()}"
        )


def _node_config(shape: NodeShape) -> NodeConfig:
    buffers = lay_buffers(shape)
    segments: list[SegmentConfig] = [first_segment(shape)]
    for layer in range(shape.header.n_layers):
        segments.append(attention_segment(shape, buffers, layer))
        segments.append(feed_forward_segment(shape, buffers, layer))
    segments.append(last_segment(shape, buffers))
    return NodeConfig(shape.node_index, buffers.configs, tuple(segments))
