"""The attention segment of a layer: this node's heads, and its partial sum of their projection."""

from __future__ import annotations

from dllama_proto.enums import FloatType, OpCode, SyncType
from dllama_proto.messages import (
    MatmulConfig,
    MultiHeadAttConfig,
    RopeConfig,
    SegmentConfig,
    ShiftConfig,
    Size3D,
)
from dllama_proto.names import Pipe, WeightName
from dllama_proto.schemas.op_configs import OPS
from dllama_worker.root.layout.buffers import Buffers
from dllama_worker.root.layout.segment import SegmentBuilder, buffer, pipe
from dllama_worker.root.layout.shape import NodeShape

__all__ = ["attention_segment"]


def attention_segment(shape: NodeShape, buffers: Buffers, layer: int) -> SegmentConfig:
    """Lay out attention, from the rows so far to every node's partial sums.

    A node without heads only keeps the rows up to date: its partial sums stay the zeros that pipes begin as.
    """
    at = buffers.at
    segment = SegmentBuilder(shape, layer)
    if layer == 0:
        segment.cast("block_cast_x", pipe(Pipe.X), buffer(at.x))
    else:
        segment.op(OpCode.MERGE_ADD, "block_merge_add", pipe(Pipe.ZQ), buffer(at.x))
    if shape.n_heads0:
        _heads(shape, buffers, segment, layer)
    segment.sync(Pipe.ZQ, SyncType.NODE_SLICES)
    return segment.build()


def _heads(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder, layer: int) -> None:
    """Append this node's heads, and its partial sums of their projection."""
    at = buffers.at
    segment.norm(WeightName.NORM_0, "block_norm_pre_0", at.x, at.y, at.inv_rms, shape.norm_weight())
    segment.cast("block_cast_y", buffer(at.y), buffer(at.yq))
    _project(shape, buffers, segment)
    if shape.header.has_qkv_bias:
        _add_biases(shape, buffers, segment)
    if shape.header.has_qk_norm:
        _norm_heads(shape, buffers, segment)
    if layer not in shape.header.unrotated_layers:
        _rotate(shape, buffers, segment)
    _attend(shape, buffers, segment, layer)
    segment.cast("block_cast_y2", buffer(at.z, sliced=True), buffer(at.zq_slice))
    segment.op(
        OpCode.MATMUL,
        WeightName.WO,
        buffer(at.zq_slice),
        buffer(at.y),
        weight=shape.weight(shape.q_dim0, shape.header.dim),
        config=MatmulConfig(0, 0, at.active_expert_indexes),
    )
    segment.cast("block_cast_d", buffer(at.y), pipe(Pipe.ZQ, sliced=True))


def _project(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    at = buffers.at
    for name, target, d in (
        (WeightName.Q, at.q, shape.q_dim0),
        (WeightName.K, at.k_temp, shape.kv_dim0),
        (WeightName.V, at.v_temp, shape.kv_dim0),
    ):
        segment.op(
            OpCode.MATMUL,
            name,
            buffer(at.yq),
            buffer(target),
            weight=shape.weight(shape.header.dim, d),
            config=MatmulConfig(0, 0, at.active_expert_indexes),
        )


def _add_biases(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    """Add one row to all: no op adds a weight, but one looks rows up, by a pipe of zeros, and one adds rows."""
    at = buffers.at
    for name, row, target, d in (
        (WeightName.BIAS_Q, at.bias_q, at.q, shape.q_dim0),
        (WeightName.BIAS_K, at.bias_kv, at.k_temp, shape.kv_dim0),
        (WeightName.BIAS_V, at.bias_kv, at.v_temp, shape.kv_dim0),
    ):
        weight = Size3D.of(FloatType.F32, y=1, x=d)
        segment.op(OpCode.EMBEDDING, name, pipe(Pipe.ZERO), buffer(row), weight=weight)
        segment.op(OpCode.MERGE_ADD, f"{name}_add", buffer(row), buffer(target))


def _norm_heads(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    """Norm queries and keys head by head, all heads with one weight (Qwen3)."""
    at = buffers.at
    weight = Size3D.of(FloatType.F32, x=shape.header.head_dim)
    n_kv_heads0 = len(shape.share.kv_heads)
    segment.norm(WeightName.NORM_Q, "block_norm_pre_q", at.q, at.q, at.inv_rms, weight, shape.n_heads0)
    segment.norm(
        WeightName.NORM_K, "block_norm_pre_k", at.k_temp, at.k_temp, at.inv_rms, weight, n_kv_heads0
    )


def _rotate(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder) -> None:
    header, at = shape.header, buffers.at
    spec = OPS.get(OpCode.ROPE)
    for name, target, is_q in (("block_rope_q", at.q, 1), ("block_rope_k", at.k_temp, 0)):
        config = RopeConfig(
            type=header.rope_type,
            is_q=is_q,
            position_pipe=Pipe.POS,
            rope_cache_buffer=at.rope_cache,
            scaling_factor=header.rope_scaling_factor,
            low_freq_factor=header.rope_scaling_low_freq_factor,
            high_freq_factor=header.rope_scaling_high_freq_factor,
            orig_max_seq_len=header.rope_scaling_orig_max_seq_len,
            slice=shape.rope_slice(),
        )
        segment.op(OpCode.ROPE, name, buffer(target), buffer(target), config=spec.defined(config))


def _attend(shape: NodeShape, buffers: Buffers, segment: SegmentBuilder, layer: int) -> None:
    """Store this batch's keys and values, and attend to all so far."""
    header, at = shape.header, buffers.at
    k_cache, v_cache = buffers.k_caches[layer], buffers.v_caches[layer]
    shift = ShiftConfig(Pipe.POS)
    segment.op(OpCode.SHIFT, "block_shift_k", buffer(at.k_temp), buffer(k_cache, raw=True), config=shift)
    segment.op(OpCode.SHIFT, "block_shift_v", buffer(at.v_temp), buffer(v_cache, raw=True), config=shift)
    segment.op(
        OpCode.MULTIHEAD_ATT,
        "block_multihead_att",
        buffer(at.z, sliced=True),
        buffer(at.z, sliced=True),
        config=MultiHeadAttConfig(
            n_heads=header.n_heads,
            n_heads0=shape.n_heads0,
            n_kv_heads=header.n_kv_heads,
            head_dim=header.head_dim,
            seq_len=header.seq_len,
            q_slice_d0=shape.q_dim0,
            kv_dim0=shape.kv_dim0,
            position_pipe=Pipe.POS,
            query_buffer=at.q,
            key_cache_buffer=k_cache,
            value_cache_buffer=v_cache,
            att_buffer=at.att,
        ),
    )
