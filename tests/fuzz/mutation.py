"""What a root said in a recording, changed at random; the same seed gives the same bytes."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from random import Random
from typing import Any

from dllama_proto.codec import encode
from dllama_proto.enums import FloatType
from dllama_proto.errors import LocalProtocolError
from dllama_proto.events import Ack, AckKind, Event
from dllama_proto.messages import EmptyConfig, Greeting, NetConfig, NodeConfig, OpConfig, Size3D
from dllama_proto.schemas.op_configs import OPS
from tests.fuzz.targets import parse
from tests.helpers.captures import CASES, load
from tests.worker.replay import Recording, read_recording

__all__ = [
    "MESHES",
    "changed_bytes",
    "changed_config",
    "changed_further",
    "changed_stream",
    "configured",
    "configured_streams",
    "whole_stream",
]

_COUNTS = (0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 100, 127, 128, 255, 256, 1000, 4096)
_INTEGERS = (*_COUNTS, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"), 10000.0)
_U64S = (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

#: Recordings with one worker: nobody else has to be there.
_PAIRS = tuple(case for case in CASES if load(case).n_nodes == 2)

#: Recordings in which workers talk to each other.
MESHES = tuple(case for case in CASES if load(case).n_nodes > 2)

_PLAIN = tuple(spec.code for spec in OPS if spec.config is EmptyConfig)
_TYPES = (FloatType.F32, FloatType.F16, FloatType.Q40, FloatType.Q80)


@cache
def _recording(case: str, node: int) -> Recording:
    return read_recording(load(case), node)


@cache
def whole_stream(case: str = _PAIRS[-1]) -> bytes:
    """Return everything that a root said to the one worker of a recording."""
    return load(case).data(0, 1)


def changed_config(random: Random) -> bytes:
    """Greet and configure a node as a recording does, with some fields of the configs changed.

    Sizes stay consistent in themselves, so that most of it passes the protocol's checks and reaches the binder.
    """
    case = random.choice(CASES)
    recording = _recording(case, random.randrange(1, load(case).n_nodes))
    configs: list[Any] = [recording.net, recording.node]
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        which = random.random() < 0.85
        configs[which] = _change(configs[which], random)
    return configured(recording.greeting, configs[0], configs[1]) or changed_config(random)


def changed_further(said: bytes, random: Random) -> bytes | None:
    """Change a field of the configs in an input; None where there are none, or the number has no room."""
    agreed = parse(said)
    if agreed is None:
        return None
    configs: list[Any] = [agreed.net, agreed.node]
    which = random.random() < 0.85
    configs[which] = _change(configs[which], random)
    return configured(agreed.greeting, configs[0], configs[1]) or None


def configured_streams() -> Iterator[bytes]:
    """Yield what roots said to each recorded worker, up to the end of its config; whole streams of one worker."""
    for case in CASES:
        for node in range(1, load(case).n_nodes):
            recording = _recording(case, node)
            yield configured(recording.greeting, recording.net, recording.node)
    yield from (whole_stream(case) for case in _PAIRS)


def changed_bytes(random: Random) -> bytes:
    """Return a recorded root's whole stream with some of its bytes changed, moved, cut or repeated."""
    if random.random() < 0.4:
        recording = _recording(random.choice(_PAIRS), 1)
        net, node = recording.net, recording.node
        for _ in range(random.choice((1, 2))):
            node = _change(node, random)
        said = configured(recording.greeting, net, node) or changed_bytes(random)
        return said + random.randbytes(random.choice((0, 8, 100)))
    return changed_stream(whole_stream(random.choice(_PAIRS)), random)


def changed_stream(said: bytes, random: Random) -> bytes:
    """Return the bytes with some of them changed, moved, cut or repeated."""
    stream = bytearray(said)
    for _ in range(random.choice((1, 1, 2, 5))):
        # Most of a stream is weights, of which any bytes will do; what says something stands at both ends.
        end = random.choice((12, 400, 4_000, 40_000, len(stream), len(stream)))
        at = random.randrange(min(end, len(stream)) or 1)
        if random.random() < 0.2:
            at = max(0, len(stream) - 1 - at)
        match random.randrange(7):
            case 0:
                stream[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                stream[at : at + 4] = struct.pack("<I", random.choice(_INTEGERS))
            case 2:
                stream[at : at + 8] = struct.pack("<Q", random.choice(_U64S))
            case 3:
                stream[at : at + random.randrange(64)] = b""
            case 4:
                stream[at:at] = stream[at : at + random.randrange(64)]
            case 5:
                del stream[at:]
            case _:
                stream[at:at] = random.randbytes(random.randrange(16))
    return bytes(stream)


def configured(greeting: Greeting, net: NetConfig, node: NodeConfig) -> bytes:
    """Return what a root says up to its config; nothing where a field cannot hold its number."""
    events: list[Event] = [
        greeting, Ack(AckKind.ROOT_READY), Ack(AckKind.NET_CONFIG_AHEAD), net,
        Ack(AckKind.NODE_CONFIG_AHEAD), node,
    ]  # fmt: skip
    try:
        return b"".join(bytes(encode(event)) for event in events)
    except LocalProtocolError:
        return b""


def _change(value: Any, random: Random) -> Any:
    """Return a record with one thing in it changed."""
    match value:
        case Size3D():
            return _change_size(value, random)
        case tuple():
            return _change_tuple(value, random)
        case IntEnum():
            return random.choice(list(type(value)))
        case bool() | int():
            return random.choice(
                (random.choice(_COUNTS), max(0, value + random.choice((-1, 1))), value * 2)
            )
        case float():
            return random.choice(_FLOATS)
        case str():
            return random.choice(("", value + "x", "block_matmul_q", "\xff"))
        case bytes():
            return random.randbytes(len(value))
    fields = dataclasses.fields(value)
    if isinstance(value, OpConfig):  # the code says what its config looks like
        if value.code in _PLAIN and random.random() < 0.2:
            return dataclasses.replace(value, code=random.choice(_PLAIN))
        fields = tuple(field for field in fields if field.name != "code")
    field = random.choice(fields)
    if isinstance(value, NodeConfig):  # most of a node is its segments
        field = random.choice((*fields, fields[-1], fields[-1], fields[-1]))
    return dataclasses.replace(value, **{field.name: _change(getattr(value, field.name), random)})


def _change_size(size: Size3D, random: Random) -> Size3D:
    dimensions = {"z": size.z, "y": size.y, "x": size.x}
    float_type = size.float_type
    if random.random() < 0.25 or float_type is FloatType.UNK:
        float_type = random.choice(_TYPES)
    name = random.choice(("z", "y", "x"))
    factor = random.choice((0.5, 2, 0, 1))
    dimensions[name] = int(dimensions[name] * factor) + random.choice((0, 0, 1, -1, 32))
    try:
        return Size3D.of(float_type, **{name: max(1, n) for name, n in dimensions.items()})
    except ValueError:  # no whole blocks
        return size


def _change_tuple(items: tuple[Any, ...], random: Random) -> tuple[Any, ...]:
    if not items:
        return items
    at = random.randrange(len(items))
    dice = random.random()
    if dice < 0.85:
        return (*items[:at], _change(items[at], random), *items[at + 1 :])
    if dice < 0.9:
        return items[:at] + items[at + 1 :]
    if dice < 0.95:
        return (*items[:at], items[at], *items[at:])
    other = random.randrange(len(items))
    swapped = list(items)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    return tuple(swapped)
