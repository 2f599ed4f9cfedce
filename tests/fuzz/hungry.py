"""Configs of a few hundred bytes that ask for much memory in every way that was found, and more."""

from __future__ import annotations

from random import Random

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType
from dllama_proto.messages import (
    BufferConfig,
    EmptyConfig,
    Greeting,
    MatmulConfig,
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

__all__ = ["hungry_config", "narrow_matmuls", "wide_cast", "wide_rope"]

_F32, _Q40, _Q80 = FloatType.F32, FloatType.Q40, FloatType.Q80
_GREETING = Greeting(1, 0, ())


def hungry_config(random: Random) -> bytes:
    """Return what a root says up to such a config."""
    n_batches = random.choice((1, 1, 2, 7, 32))
    match random.randrange(4):
        case 0:
            n_experts = random.choice((1, 2, 16))
            return narrow_matmuls(
                random.randint(1, 4), random.randint(1, 40) << random.randint(5, 18), n_experts
            )
        case 1:
            return wide_rope(
                random.randint(1, 200) << random.randint(1, 14), random.choice(tuple(RopeType))
            )
        case 2:
            types = random.choice(((_F32, _Q80), (_Q80, _F32), (_F32, _F32)))
            return wide_cast(*types, random.randint(1, 40) << random.randint(5, 16), n_batches)
        case _:
            code = random.choice((OpCode.SILU, OpCode.GELU, OpCode.SOFTMAX))
            return _in_place(code, random.randint(1, 100) << random.randint(1, 16), n_batches)


def narrow_matmuls(n_columns: int, n: int, n_weights: int = 1) -> bytes:
    """MATMUL Q80_Q40_F32 with few columns: native kernels fill a tile of 8 or 16 rows up."""
    pipes = (_pipe(_Q80, n), _pipe(_F32, n_columns))
    ops = [
        OpConfig(
            OpCode.MATMUL, index, Size3D.of(_Q40, y=n, x=n_columns), "block_matmul_q", _pointer(0), _pointer(1),
            MatmulConfig(0, 0, 0),
        )
        for index in range(n_weights)
    ]  # fmt: skip
    return _said(1, pipes, (), ops)


def wide_rope(width: int, rope_type: RopeType = RopeType.LLAMA) -> bytes:
    """ROPE over a cache of one very long row, of which little is used: filling it takes numbers in float64."""
    falcon = rope_type is RopeType.FALCON
    turned = width if falcon else 2
    size = Size3D.of(_F32, x=width)
    part = RopeSlice(
        q_dim0=turned, q_dim_start=0, q_dim_end=width, q_shift=width - turned, kv_dim=width, kv_dim0=width,
        kv_dim_start=0, slice_dim=width, seq_len=1, head_dim=width, n_kv_heads=1, rope_theta=10_000.0,
        cache_size=size,
    )  # fmt: skip
    config = RopeConfig(rope_type, 1, 1, 0, 1.0 if falcon else 8.0, 1.0, 4.0, 8192, part)
    op = OpConfig(OpCode.ROPE, 0, Size3D.none(), "block_rope_q", _pointer(0), _pointer(0), config)
    pipes = (_pipe(_F32, turned), _pipe(_F32, 1))
    return _said(1, pipes, (BufferConfig(size, "cache"),), [op])


def wide_cast(source: FloatType, target: FloatType, width: int, n_batches: int = 1) -> bytes:
    """CAST of long rows: NumPy quantises with several arrays of their size."""
    pipes = (_pipe(source, width, n_batches), _pipe(target, width, n_batches))
    op = OpConfig(OpCode.CAST, 0, Size3D.none(), "block_cast", _pointer(0), _pointer(1), EmptyConfig())
    return _said(n_batches, pipes, (), [op])


def _in_place(code: OpCode, width: int, n_batches: int) -> bytes:
    op = OpConfig(code, 0, Size3D.none(), "block_act", _pointer(0), _pointer(0), EmptyConfig())
    return _said(n_batches, (_pipe(_F32, width, n_batches),), (), [op])


def _pipe(float_type: FloatType, width: int, n_batches: int = 1) -> PipeConfig:
    return PipeConfig(Size3D.of(float_type, y=n_batches, x=width), "X")


def _pointer(pipe: int) -> Pointer:
    return Pointer(PointerSource.PIPE, pipe, PointerType.BATCH)


def _said(
    n_batches: int, pipes: tuple[PipeConfig, ...], buffers: tuple[BufferConfig, ...], ops: list[OpConfig]
) -> bytes:
    net = NetConfig(n_batches, 2, pipes, ())
    return configured(_GREETING, net, NodeConfig(1, buffers, (SegmentConfig((), tuple(ops)),)))
