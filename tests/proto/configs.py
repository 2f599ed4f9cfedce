"""Valid configurations to test with: one small cluster by hand, and strategies for any other."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType, SyncType
from dllama_proto.messages import (
    BufferConfig,
    ControlPacket,
    EmptyConfig,
    Greeting,
    InvRmsConfig,
    MatmulConfig,
    MoeGateConfig,
    MulConfig,
    MultiHeadAttConfig,
    NetConfig,
    NodeConfig,
    OpConfig,
    OpParams,
    Peer,
    PipeConfig,
    Pointer,
    PreSyncConfig,
    RmsNormConfig,
    RopeConfig,
    RopeSlice,
    ScaleConfig,
    SegmentConfig,
    ShiftConfig,
    Size3D,
    SyncConfig,
    WeightHeader,
)

__all__ = [
    "CONTROL",
    "GREETING",
    "NET",
    "NODE",
    "PARAMS",
    "WEIGHT",
    "clusters",
    "control_packets",
    "greetings",
    "op_params",
    "texts",
    "weight_headers",
]

U32 = 2**32 - 1
U64 = 2**64 - 1

# A small cluster ------------------------------------------------------------------------------------

_F32_ROWS = Size3D.of(FloatType.F32, y=4, x=64)
_ROPE_SLICE = RopeSlice(
    32, 32, 64, 16, 32, 16, 16, 48, 100, 16, 2, 10000.0, Size3D.of(FloatType.F32, y=100, x=48)
)

#: A valid config for each op code of the cluster below.
PARAMS: dict[OpCode, OpParams] = {
    **dict.fromkeys(OpCode, EmptyConfig(b"\xa5")),
    OpCode.INV_RMS: InvRmsConfig(2**-17, 1),
    OpCode.RMS_NORM: RmsNormConfig(1, 1),
    OpCode.MATMUL: MatmulConfig(0, 0, 99),
    OpCode.ROPE: RopeConfig(RopeType.LLAMA, 1, 0, 1, 1.0, 0.0, 0.0, 0, _ROPE_SLICE),
    OpCode.MULTIHEAD_ATT: MultiHeadAttConfig(4, 2, 2, 16, 100, 32, 16, 0, 0, 1, 1, 0),
    OpCode.MUL: MulConfig(1),
    OpCode.SCALE: ScaleConfig(0),
    OpCode.SHIFT: ShiftConfig(0),
    OpCode.MOE_GATE: MoeGateConfig(2, 1, 1),
}

GREETING = Greeting(3, 1, (Peer("10.0.0.1", 9990), Peer("pi.local", 9999)))

NET = NetConfig(
    n_batches=4,
    n_nodes=4,
    pipes=(
        PipeConfig(Size3D.of(FloatType.F32, y=4, x=1), "POS"),
        PipeConfig(Size3D.of(FloatType.F32, y=4, x=64), "X"),
        PipeConfig(Size3D.of(FloatType.Q80, y=4, x=256), "ZQ"),
    ),
    pre_syncs=(PreSyncConfig(0),),
)

_BATCH = Pointer(PointerSource.BUFFER, 0, PointerType.BATCH)
_SLICE = Pointer(PointerSource.PIPE, 2, PointerType.BATCHED_SLICE)
_RAW = Pointer(PointerSource.BUFFER, 1, PointerType.RAW)

_OPS = tuple(
    OpConfig(code, 0, Size3D.none(), f"op_{code.name.lower()}", _BATCH, _SLICE, params)
    for code, params in PARAMS.items()
)
_WEIGHTED = replace(
    _OPS[OpCode.MATMUL], name="weighted", weight_size=Size3D.of(FloatType.Q40, z=2, y=64, x=96), output=_RAW
)

#: Every op code once, and an op with a weight, last.
NODE = NodeConfig(
    node_index=2,
    buffers=(BufferConfig(_F32_ROWS, "x"), BufferConfig(Size3D.of(FloatType.F32, y=100, x=16), "k")),
    segments=(
        SegmentConfig((SyncConfig(1, SyncType.WITH_ROOT),), ()),
        SegmentConfig(
            (SyncConfig(2, SyncType.NODE_SLICES), SyncConfig(1, SyncType.NODE_SLICES_EXCEPT_ROOT)),
            (*_OPS, _WEIGHTED),
        ),
    ),
)

WEIGHT = WeightHeader("weighted", 0, 18, 36)

CONTROL = ControlPacket(96, 4)

# Strategies -----------------------------------------------------------------------------------------

u32s = st.integers(0, U32)


@st.composite
def floats32(draw: st.DrawFn) -> float:
    """Any float that the wire can carry, whatever bits its NaN has."""
    bits = draw(u32s)
    value: float = struct.unpack("<f", bits.to_bytes(4, "little"))[0]
    if math.isnan(value):
        wide = (bits >> 31 << 63) | (0x7FF << 52) | ((bits & 0x7FFFFF) << 29)
        value = struct.unpack("<d", wide.to_bytes(8, "little"))[0]
    return value


def texts(min_size: int = 0) -> st.SearchStrategy[str]:
    """Any bytes without a NUL, as text."""
    return st.binary(min_size=min_size, max_size=40).map(
        lambda data: data.replace(b"\0", b"?").decode("utf-8", "surrogateescape")
    )


@st.composite
def greetings(draw: st.DrawFn) -> Greeting:
    peers = draw(st.lists(st.builds(Peer, texts(min_size=1), st.integers(1, 65_535)), max_size=6))
    return Greeting(len(peers) + 1, draw(st.integers(0, len(peers))), tuple(peers))


def weight_headers() -> st.SearchStrategy[WeightHeader]:
    return st.builds(WeightHeader, texts(), u32s, st.integers(0, U64), st.integers(0, U64))


def control_packets() -> st.SearchStrategy[ControlPacket]:
    return st.builds(ControlPacket, u32s, u32s)


@st.composite
def sizes(draw: st.DrawFn, rows: int) -> Size3D:
    float_type = draw(st.sampled_from([FloatType.F32, FloatType.F16, FloatType.Q40, FloatType.Q80]))
    x = draw(st.integers(1, 8)) * (32 if float_type in (FloatType.Q40, FloatType.Q80) else 1)
    return Size3D.of(float_type, z=draw(st.integers(1, 3)), y=rows, x=x)


_ATT_SIZES = ("n_heads", "n_heads0", "n_kv_heads", "head_dim", "seq_len", "q_slice_d0", "kv_dim0")
_ATT_BUFFERS = ("query_buffer", "key_cache_buffer", "value_cache_buffer", "att_buffer")


@st.composite
def op_params(draw: st.DrawFn, code: OpCode, n_buffers: int) -> OpParams:
    """Any config of an op that is valid where there are ``n_buffers`` buffers, pipe 0 being the positions."""
    buffers = st.integers(0, n_buffers - 1)
    match code:
        case OpCode.INV_RMS:
            return InvRmsConfig(draw(floats32()), draw(u32s))
        case OpCode.RMS_NORM:
            return RmsNormConfig(draw(buffers), draw(u32s))
        case OpCode.MATMUL:
            n_active_experts = draw(st.integers(0, 4))
            return MatmulConfig(draw(u32s), n_active_experts, draw(buffers if n_active_experts else u32s))
        case OpCode.ROPE:
            return draw(
                st.builds(
                    RopeConfig,
                    type=st.sampled_from(RopeType),
                    is_q=u32s,
                    position_pipe=st.just(0),
                    rope_cache_buffer=buffers,
                    scaling_factor=floats32(),
                    low_freq_factor=floats32(),
                    high_freq_factor=floats32(),
                    orig_max_seq_len=u32s,
                    slice=st.builds(RopeSlice, *[u32s] * 11, floats32(), sizes(rows=7)),
                )
            )
        case OpCode.MULTIHEAD_ATT:
            fields: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(_ATT_SIZES, u32s)
            fields |= dict.fromkeys(_ATT_BUFFERS, buffers)
            return draw(st.builds(MultiHeadAttConfig, position_pipe=st.just(0), **fields))
        case OpCode.MUL:
            return MulConfig(draw(buffers))
        case OpCode.SCALE:
            return ScaleConfig(draw(buffers))
        case OpCode.SHIFT:
            return ShiftConfig(0)
        case OpCode.MOE_GATE:
            return MoeGateConfig(draw(u32s), draw(u32s), draw(buffers))
        case _:
            return EmptyConfig(draw(st.binary(min_size=1, max_size=1)))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Greeting, NetConfig, NodeConfig]:
    """Any valid greeting, net config and node config of one worker that belong together."""
    n_nodes = draw(st.sampled_from([2, 3, 4, 8]))
    n_batches = draw(st.integers(1, 5))
    peers = tuple(Peer(f"worker{i}", 9990 + i) for i in range(n_nodes - 2))
    greeting = Greeting(n_nodes - 1, draw(st.integers(0, n_nodes - 2)), peers)
    positions = PipeConfig(Size3D.of(FloatType.F32, y=n_batches, x=1), draw(texts()))
    shared = [
        PipeConfig(
            Size3D.of(
                draw(st.sampled_from([FloatType.F32, FloatType.Q80])),
                y=n_batches,
                x=32 * n_nodes * draw(st.integers(1, 3)),
            ),
            draw(texts()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    pre_syncs = (PreSyncConfig(0),) * draw(st.integers(0, 2))
    net = NetConfig(n_batches, n_nodes, (positions, *shared), pre_syncs)
    buffers = [
        BufferConfig(draw(sizes(rows=n_batches)), draw(texts())) for _ in range(draw(st.integers(1, 4)))
    ]
    pointers = st.one_of(
        st.builds(
            Pointer,
            st.just(PointerSource.BUFFER),
            st.integers(0, len(buffers) - 1),
            st.sampled_from([PointerType.RAW, PointerType.BATCH]),
        ),
        st.builds(
            Pointer, st.just(PointerSource.PIPE), st.integers(1, len(shared)), st.sampled_from(PointerType)
        ),
    )
    segments = []
    for segment_index in range(draw(st.integers(0, 3))):
        ops = []
        for op_index in range(draw(st.integers(0, 4))):
            code = draw(st.sampled_from(OpCode))
            weight = draw(st.one_of(st.just(Size3D.none()), sizes(rows=32)))
            name = f"{draw(texts())}{segment_index}.{op_index}"
            params = draw(op_params(code, len(buffers)))
            ops.append(OpConfig(code, draw(u32s), weight, name, draw(pointers), draw(pointers), params))
        syncs = st.lists(
            st.builds(SyncConfig, st.integers(1, len(shared)), st.sampled_from(SyncType)), max_size=3
        )
        segments.append(SegmentConfig(tuple(draw(syncs)), tuple(ops)))
    node = NodeConfig(greeting.worker_index + 1, tuple(buffers), tuple(segments))
    return greeting, net, node
