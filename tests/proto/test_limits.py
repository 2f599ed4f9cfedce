"""A claim is held against its limit before anything is allocated by it, however large it is."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import fields, replace
from typing import Any

import pytest

from dllama_proto.connection import Phase, Role
from dllama_proto.enums import OpCode
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.messages import Greeting, NetConfig, NodeConfig, WeightHeader
from tests.proto.configs import GREETING, NET, NODE, WEIGHT
from tests.proto.stages import REFUSAL, Pair

_U32 = 2**32 - 1
_U64 = 2**64 - 1

_PHASE = {
    Greeting: Phase.GREETING,
    NetConfig: Phase.NET_CONFIG,
    NodeConfig: Phase.NODE_CONFIG,
    WeightHeader: Phase.WEIGHTS,
}

_PIPES = sum(pipe.size.n_bytes for pipe in NET.pipes)
_BUFFERS = sum(buffer.size.n_bytes for buffer in NODE.buffers)
_WEIGHTS = NODE.segments[1].ops[-1].weight_size.n_bytes
_ROPE_CACHE = f"NodeConfig.segments[1].ops[{OpCode.ROPE.value}].config.slice.cache_size.n_bytes"

#: A limit, the least value that the message keeps, and the field that is named where it doesn't.
_NARROW: list[tuple[str, int, Any, str]] = [
    ("n_sockets", 3, GREETING, "Greeting.n_sockets"),
    ("host_length", 9, GREETING, "Greeting.peers[0].host"),
    ("name_length", 4, NET, "NetConfig.pipes[0].name"),
    ("n_batches", 4, NET, "NetConfig.n_batches"),
    ("n_pipes", 3, NET, "NetConfig.n_pipes"),
    ("n_pre_syncs", 1, NET, "NetConfig.n_pre_syncs"),
    ("tensor_bytes", 1088, NET, "NetConfig.pipes[2].size.n_bytes"),
    ("memory_bytes", _PIPES, NET, "NetConfig.pipes[2].size.n_bytes"),
    ("n_buffers", 2, NODE, "NodeConfig.n_buffers"),
    ("n_segments", 2, NODE, "NodeConfig.n_segments"),
    ("n_syncs", 3, NODE, "NodeConfig.segments[1].n_syncs"),
    ("n_ops", 18, NODE, "NodeConfig.segments[1].n_ops"),
    ("tensor_bytes", 19_200, NODE, _ROPE_CACHE),
    ("memory_bytes", _PIPES + _BUFFERS, NODE, "NodeConfig.buffers[1].size.n_bytes"),
    (
        "memory_bytes",
        _PIPES + _BUFFERS + _WEIGHTS,
        NODE,
        "NodeConfig.segments[1].ops[17].weight_size.n_bytes",
    ),
    ("weight_piece_bytes", 36, WEIGHT, "WeightHeader.n_bytes"),
]


def _narrow(limit: str, value: int) -> Limits:
    return replace(DEFAULT_LIMITS, **{limit: value})


@pytest.mark.parametrize(("limit", "value", "message", "path"), _NARROW)
def test_a_limit_refuses_what_exceeds_it(limit: str, value: int, message: Any, path: str) -> None:
    pair = Pair(_narrow(limit, value - 1)).advance_to(_PHASE[type(message)])
    with pytest.raises(RemoteProtocolError) as caught:
        pair.say(Role.ROOT, message)
    assert caught.value.path == path
    assert caught.value.hint == f"Limits.{limit}"
    assert str(value - 1) in caught.value.expected
    assert str(value) in caught.value.got


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    # Buffers that just keep the limit leave nothing for the weights after them.
    [case[:3] for case in _NARROW if "buffers[1]" not in case[3]],
)
def test_a_limit_lets_pass_what_just_keeps_it(limit: str, value: int, message: Any) -> None:
    pair = Pair(_narrow(limit, value)).advance_to(_PHASE[type(message)])
    assert pair.say(Role.ROOT, message) == message


#: What the worker says is held against the root's limits.
_REASON = len(REFUSAL.reason) + 1


@pytest.mark.parametrize("phase", [Phase.GREETING_ACK, Phase.ROOT_READY, Phase.WEIGHTS])
@pytest.mark.parametrize("limit", [_REASON - 1, _REASON])
def test_the_root_refuses_a_reason_that_is_too_long(phase: Phase, limit: int) -> None:
    pair = Pair(root_limits=_narrow("refusal_length", limit)).advance_to(phase)
    if limit == _REASON:
        assert pair.say(Role.WORKER, REFUSAL) == REFUSAL
        return
    with pytest.raises(RemoteProtocolError) as caught:
        pair.say(Role.WORKER, REFUSAL)
    assert (caught.value.path, caught.value.hint) == ("Refusal.reason", "Limits.refusal_length")


def test_every_limit_is_tried() -> None:
    tried = {case[0] for case in _NARROW} | {"refusal_length"}
    assert tried == {field.name for field in fields(Limits)}


_SIZE = struct.pack("<iIIIQQQ", 0, 1, 4, 1, 4, 16, 16)
_LONE = struct.pack("<III", 4, 4, 1)
_NET = _LONE + _SIZE
_NAME_AND_END = b"\2\0\0\0x\0" + bytes(4)
_NODE = struct.pack("<III", 2, 0, 1)
_OP = struct.pack("<iI", 5, 0) + struct.pack("<iIIIQQQ", -1, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Greeting, struct.pack("<II", _U32, 0)),
        (Greeting, struct.pack("<III", 3, 0, _U32)),
        (NetConfig, struct.pack("<III", _U32, 4, 0) + bytes(4)),
        (NetConfig, struct.pack("<III", 4, 4, _U32)),
        (NetConfig, _NET + struct.pack("<I", _U32)),
        (NetConfig, _NET + struct.pack("<I2sI", 2, b"x\0", _U32)),
        (
            NetConfig,
            _LONE + struct.pack("<iIIIQQQ", 0, _U32, _U32, _U32, _U64, _U64, _U64) + _NAME_AND_END,
        ),
        (
            NetConfig,
            _LONE + struct.pack("<iIIIQQQ", 0, 2**20, 4, 2**20, 2**42, 2**44, 2**24) + _NAME_AND_END,
        ),
        (NodeConfig, struct.pack("<III", 2, _U32, 0)),
        (NodeConfig, struct.pack("<III", 2, 0, _U32)),
        (NodeConfig, _NODE + struct.pack("<II", _U32, 0)),
        (NodeConfig, _NODE + struct.pack("<II", 0, _U32)),
        (NodeConfig, _NODE + struct.pack("<II", 0, 1) + _OP + struct.pack("<II", _U32, 2)),
        (NodeConfig, _NODE + struct.pack("<II", 0, 1) + _OP + struct.pack("<II", 12, _U32)),
        (WeightHeader, struct.pack("<I", _U32)),
        (WeightHeader, struct.pack("<I9sIQQ", 9, b"weighted\0", 0, _U64, _U64)),
        (WeightHeader, struct.pack("<I9sIQQ", 9, b"weighted\0", 0, 0, _U64)),
    ],
)
def test_huge_claims_are_refused_at_once_and_cost_nothing(kind: type, data: bytes) -> None:
    worker = Pair().advance_to(_PHASE[kind]).worker
    tracemalloc.start()
    try:
        worker.receive_data(data)
        with pytest.raises(RemoteProtocolError) as caught:
            worker.next_event()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.path.startswith(kind.__name__)
    assert caught.value.got != "the end of the stream"
    assert peak < 300_000


def test_many_segments_together_keep_the_limit_of_ops() -> None:
    pair = Pair(_narrow("n_ops", 10)).advance_to(Phase.NODE_CONFIG)
    many = replace(
        NODE, segments=tuple(replace(NODE.segments[1], ops=NODE.segments[1].ops[:6]) for _ in range(2))
    )
    with pytest.raises(RemoteProtocolError) as caught:
        pair.say(Role.ROOT, many)
    assert caught.value.path == "NodeConfig.segments[1].n_ops"
    assert caught.value.got == "6 (12 with those before it)"
