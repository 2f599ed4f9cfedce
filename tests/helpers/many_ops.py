"""Configs with as many ops as the protocol allows, which take long to bind, or have a fault in every op."""

from __future__ import annotations

from itertools import cycle, islice

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType
from dllama_proto.messages import (
    EmptyConfig,
    Greeting,
    NetConfig,
    NodeConfig,
    OpConfig,
    PipeConfig,
    Pointer,
    SegmentConfig,
    Size3D,
)
from tests.fuzz.mutation import configured

__all__ = ["MAX_OPS", "activations", "said", "unlike_rows"]

#: What the limits of the protocol allow.
MAX_OPS = 65_536

_WIDTHS = (32, 64)


def activations(n_ops: int) -> NodeConfig:
    """Return a config that can be run: SILU in place, over and over, on two pipes in turn."""
    ops = [_silu(pipe, pipe, "block_act") for pipe in range(len(_WIDTHS))]
    return _node(tuple(islice(cycle(ops), n_ops)))


def unlike_rows(n_ops: int, name: str) -> NodeConfig:
    """Return a config that passes the protocol's own checks, and in which every op has a fault."""
    return _node((_silu(0, 1, name),) * n_ops)


def said(node: NodeConfig) -> bytes:
    """Return what a root says to its only worker up to the end of this config."""
    pipes = tuple(PipeConfig(Size3D.of(FloatType.F32, x=width), "X") for width in _WIDTHS)
    return configured(Greeting(1, 0, ()), NetConfig(1, 2, pipes, ()), node)


def _node(ops: tuple[OpConfig, ...]) -> NodeConfig:
    return NodeConfig(1, (), (SegmentConfig((), ops),))


def _silu(source: int, target: int, name: str) -> OpConfig:
    return OpConfig(OpCode.SILU, 0, Size3D.none(), name, _pointer(source), _pointer(target), EmptyConfig())


def _pointer(pipe: int) -> Pointer:
    return Pointer(PointerSource.PIPE, pipe, PointerType.BATCH)
