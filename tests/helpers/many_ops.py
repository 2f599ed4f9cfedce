"""Configs with as many ops as the protocol allows, which take long to bind, or have a fault in every op."""

from __future__ import annotations

from itertools import cycle, islice

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType
from dllama_proto.messages import (
    BufferConfig,
    EmptyConfig,
    Greeting,
    NetConfig,
    NodeConfig,
    OpConfig,
    PipeConfig,
    Pointer,
    RopeConfig,
    RopeSlice,
    SegmentConfig,
    Size3D,
)
from tests.fuzz.mutation import configured

__all__ = ["MAX_OPS", "activations", "ropes", "said", "unlike_rows"]

#: What the limits of the protocol allow.
MAX_OPS = 65_536


def activations(n_ops: int, width: int = 32) -> tuple[NetConfig, NodeConfig]:
    """Return a config that can be run: SILU in place, over and over, on two pipes in turn."""
    ops = [_silu(pipe, pipe, "block_act") for pipe in range(2)]
    return _net(width, width), _node(tuple(islice(cycle(ops), n_ops)))


def unlike_rows(n_ops: int, name: str) -> tuple[NetConfig, NodeConfig]:
    """Return a config that passes the protocol's own checks, and in which every op has two faults."""
    return _net(32, 64), _node((_silu(0, 1, name),) * n_ops)


def ropes(n_ops: int, seq_len: int, width: int = 64) -> tuple[NetConfig, NodeConfig]:
    """Return a config of ROPE ops that share a cache, which each wants filled otherwise than the one before."""
    cache = Size3D.of(FloatType.F32, y=seq_len, x=width)
    ops = tuple(islice(cycle([_rope(cache, 10_000.0), _rope(cache, 20_000.0)]), n_ops))
    return _net(2, 1), _node(ops, BufferConfig(cache, "cache"))


def said(config: tuple[NetConfig, NodeConfig]) -> bytes:
    """Return what a root says to its only worker up to the end of this config."""
    return configured(Greeting(1, 0, ()), *config)


def _net(*widths: int) -> NetConfig:
    return NetConfig(
        1, 2, tuple(PipeConfig(Size3D.of(FloatType.F32, x=width), "X") for width in widths), ()
    )


def _node(ops: tuple[OpConfig, ...], *buffers: BufferConfig) -> NodeConfig:
    return NodeConfig(1, buffers, (SegmentConfig((), ops),))


def _silu(source: int, target: int, name: str) -> OpConfig:
    return OpConfig(OpCode.SILU, 0, Size3D.none(), name, _pointer(source), _pointer(target), EmptyConfig())


def _rope(cache: Size3D, theta: float) -> OpConfig:
    part = RopeSlice(
        q_dim0=2, q_dim_start=0, q_dim_end=cache.x, q_shift=cache.x - 2, kv_dim=cache.x, kv_dim0=cache.x,
        kv_dim_start=0, slice_dim=cache.x, seq_len=cache.y, head_dim=cache.x, n_kv_heads=1, rope_theta=theta,
        cache_size=cache,
    )  # fmt: skip
    config = RopeConfig(RopeType.LLAMA, 1, 1, 0, 1.0, 1.0, 4.0, 8192, part)
    return OpConfig(OpCode.ROPE, 0, Size3D.none(), "block_rope_q", _pointer(0), _pointer(0), config)


def _pointer(pipe: int) -> Pointer:
    return Pointer(PointerSource.PIPE, pipe, PointerType.BATCH)
