"""The first segment, which embeds the tokens, and the last, which makes the logits."""

from __future__ import annotations

from dllama_proto.enums import FloatType, OpCode, SyncType
from dllama_proto.messages import MatmulConfig, SegmentConfig, Size3D
from dllama_proto.names import Pipe, WeightName
from dllama_worker.root.layout.buffers import Buffers
from dllama_worker.root.layout.segment import SegmentBuilder, buffer, pipe
from dllama_worker.root.layout.shape import NodeShape

__all__ = ["first_segment", "last_segment"]


def first_segment(shape: NodeShape) -> SegmentConfig:
    """Embed the tokens on the root, and send the rows to everybody."""
    segment = SegmentBuilder(shape)
    if shape.node_index == 0:
        size = Size3D.of(FloatType.F32, y=shape.header.vocab_size, x=shape.header.dim)
        segment.op(OpCode.EMBEDDING, WeightName.EMBEDDING, pipe(Pipe.TOK), pipe(Pipe.X), weight=size)
    segment.sync(Pipe.X, SyncType.WITH_ROOT)
    return segment.build()


def last_segment(shape: NodeShape, buffers: Buffers) -> SegmentConfig:
    """Add up, norm, and multiply with this node's rows of the classifier; the root collects the slices.

    A classifier of F32 weights takes the rows as they are, also where those of other matmuls are quantised.
    """
    at, header = buffers.at, shape.header
    rows = at.y if header.logits_float_type is FloatType.F32 else at.yq
    segment = SegmentBuilder(shape)
    segment.op(OpCode.MERGE_ADD, "final_merge_add", pipe(Pipe.ZQ), buffer(at.x))
    segment.norm(WeightName.FINAL_NORM, "final_norm_pre", at.x, at.y, at.inv_rms, shape.norm_weight())
    segment.cast("final_cast_y", buffer(at.y), buffer(rows))
    segment.op(
        OpCode.MATMUL,
        WeightName.LOGITS,
        buffer(rows),
        buffer(at.logits),
        weight=Size3D.of(header.logits_float_type, y=header.dim, x=shape.vocab0),
        config=MatmulConfig(0, 0, 0),
    )
    segment.cast("final_cast_logits", buffer(at.logits), pipe(Pipe.LG, sliced=True))
    segment.sync(Pipe.LG, SyncType.NODE_SLICES_EXCEPT_ROOT)
    return segment.build()
