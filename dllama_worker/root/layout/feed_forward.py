"""The feed-forward segment of a layer: one block, or the active ones of many experts."""

from __future__ import annotations

from dllama_proto.enums import FloatType, OpCode, SyncType
from dllama_proto.messages import (
    MatmulConfig,
    MoeGateConfig,
    MulConfig,
    ScaleConfig,
    SegmentConfig,
    Size3D,
)
from dllama_proto.model_header import HiddenAct
from dllama_proto.names import Pipe, WeightName
from dllama_worker.root.layout.buffers import Buffers
from dllama_worker.root.layout.segment import SegmentBuilder, buffer, pipe
from dllama_worker.root.layout.shape import NodeShape

__all__ = ["feed_forward_segment"]

# The C++ root lays out SILU whatever the header says; a model that needs GELU gets it here.
_ACTIVATIONS = {HiddenAct.SILU: OpCode.SILU, HiddenAct.GELU: OpCode.GELU}


def feed_forward_segment(shape: NodeShape, buffers: Buffers, layer: int) -> SegmentConfig:
    """Lay out the feed-forward block, from attention's partial sums to its own.

    A node without a part of it only keeps the rows up to date, as in attention.
    """
    at = buffers.at
    segment = SegmentBuilder(shape, layer)
    segment.op(OpCode.MERGE_ADD, "block_merge_add2", pipe(Pipe.ZQ), buffer(at.x))
    if shape.ff_dim0:
        _columns(shape, buffers, segment)
    segment.sync(Pipe.ZQ, SyncType.NODE_SLICES)
    return segment.build()


def _columns(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    """Append this node's columns of the block, and its partial sums."""
    at = buffers.at
    segment.norm(WeightName.NORM_1, "block_norm_pre_1", at.x, at.y, at.inv_rms, shape.norm_weight())
    if shape.header.is_moe:
        _experts(shape, buffers, segment)
    else:
        segment.cast("block_cast_y3", buffer(at.y), buffer(at.yq))
        plain = MatmulConfig(0, 0, at.active_expert_indexes)
        _gated(shape, segment, at.yq, at.d, at.dq, at.l, at.y, experts=1, config=plain)
    segment.cast("block_cast_d3", buffer(at.y), pipe(Pipe.ZQ, sliced=True))


def _gated(
    shape: NodeShape,
    segment: SegmentBuilder,
    source: int,
    d: int,
    dq: int,
    l: int,  # noqa: E741 (its name on the wire)
    target: int,
    *,
    experts: int,
    config: MatmulConfig,
) -> None:
    """Append w2(act(w1(x)) * w3(x)), for one block or for the active experts."""
    up = shape.weight(shape.header.dim, shape.ff_dim0, experts=experts)
    down = shape.weight(shape.ff_dim0, shape.header.dim, experts=experts)
    activation = _ACTIVATIONS[shape.header.hidden_act]
    segment.op(OpCode.MATMUL, WeightName.W1, buffer(source), buffer(d), weight=up, config=config)
    segment.op(OpCode.MATMUL, WeightName.W3, buffer(source), buffer(l), weight=up, config=config)
    segment.op(activation, "block_act", buffer(d), buffer(d))
    segment.op(OpCode.MUL, "block_mul", buffer(d), buffer(d), config=MulConfig(l))
    segment.cast("block_cast_d2", buffer(d), buffer(dq))
    segment.op(OpCode.MATMUL, WeightName.W2, buffer(dq), buffer(target), weight=down, config=config)


def _experts(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    """Append gate, active experts, and their weighted sum; every node holds a part of every expert."""
    header, at = shape.header, buffers.at
    indexes = at.active_expert_indexes
    segment.op(OpCode.REPEAT_Z, "block_moe_y_repeat", buffer(at.y), buffer(at.moe_yq))
    segment.op(
        OpCode.MATMUL,
        WeightName.MOE_GATE,
        buffer(at.y),
        buffer(at.gate),
        weight=Size3D.of(FloatType.F32, y=header.dim, x=header.n_experts),
        config=MatmulConfig(0, 0, indexes),
    )
    segment.op(OpCode.SOFTMAX, "block_moe_softmax", buffer(at.gate), buffer(at.gate))
    segment.op(
        OpCode.MOE_GATE,
        "block_moe_gate2",
        buffer(at.gate),
        buffer(at.moe_scale),
        config=MoeGateConfig(header.n_active_experts, 1, indexes),
    )
    active = MatmulConfig(header.n_experts, header.n_active_experts, indexes)
    _gated(
        shape,
        segment,
        at.moe_yq,
        at.moe_d,
        at.moe_dq,
        at.moe_l,
        at.moe_y,
        experts=header.n_experts,
        config=active,
    )
    scale = ScaleConfig(at.moe_scale)
    segment.op(OpCode.SCALE, "block_moe_scale", buffer(at.moe_y), buffer(at.moe_y), config=scale)
    segment.op(OpCode.MERGE_SUM, "block_moe_merge_sum", buffer(at.moe_y), buffer(at.y))
