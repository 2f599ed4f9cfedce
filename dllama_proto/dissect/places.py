"""Where in the model a segment is, as far as a node's configuration tells: ops say their layer."""

from __future__ import annotations

from dllama_proto.dissect.events import Place
from dllama_proto.enums import OpCode
from dllama_proto.messages import NodeConfig, SegmentConfig
from dllama_proto.names import is_of_layer

__all__ = ["places_of"]


def places_of(node: NodeConfig) -> tuple[Place, ...]:
    """Return the place of each segment. Workers have no ops before the first layer: that is the input."""
    return tuple(
        _place(index, segment, index == len(node.segments) - 1)
        for index, segment in enumerate(node.segments)
    )


def _place(index: int, segment: SegmentConfig, is_last: bool) -> Place:
    layers = {op.index for op in segment.ops if is_of_layer(op.name)}
    if len(layers) == 1:
        codes = {op.code for op in segment.ops}
        return Place(layers.pop(), "attention" if OpCode.MULTIHEAD_ATT in codes else "feed-forward")
    if not index:
        return Place(None, "input")
    return Place(None, "output" if is_last else f"segment {index}")
