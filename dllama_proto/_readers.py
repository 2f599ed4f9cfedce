"""What is read in each phase: the generator that asks for pieces and returns the event.

Payloads have no reader; see :mod:`dllama_proto._payload`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from dllama_proto._phases import ACK_PHASES, ROOT_LINK, AckKind, Phase, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Ack, Event, WeightsEnd
from dllama_proto.limits import Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal, WeightHeader
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import ACK_BYTES, ACK_NUMBER
from dllama_proto.schemas.incremental import Piece, Reader, read_message
from dllama_proto.schemas.refusal import REFUSAL_BYTES

__all__ = ["READERS", "read_refusal"]


def _read_ack(kind: AckKind, limits: Limits) -> Reader[Event]:
    path = f"Ack({kind.name})"
    return _ack(kind, path, (yield Piece(len(ACK_BYTES), path, 0)))


def _read_answer(kind: AckKind, limits: Limits) -> Reader[Event]:
    """Read an ack of the worker, or a refusal in its place."""
    path = f"Ack({kind.name})"
    data = yield Piece(len(ACK_BYTES), path, 0)
    if data == REFUSAL_BYTES:
        return (yield from _read_refusal_after(data, limits))
    return _ack(kind, path, data)


def read_refusal(limits: Limits) -> Reader[Event]:
    """Read a refusal that comes while it is the root's turn. Raises RemoteProtocolError."""
    return _read_message(Refusal, limits)


def _ack(kind: AckKind, path: str, data: memoryview) -> Ack:
    if data != ACK_BYTES:
        raise RemoteProtocolError(
            path,
            expected=f"{ACK_NUMBER} ({ACK_BYTES.hex(' ')})",
            got=f"{int.from_bytes(data, 'little')} ({data.hex(' ')})",
            offset=0,
        )
    return Ack(kind)


def _read_refusal_after(mark: memoryview, limits: Limits) -> Reader[Event]:
    """Read the rest of a refusal whose mark has been read."""
    reader = _read_message(Refusal, limits)
    piece = next(reader)
    rest = yield Piece(piece.size - len(mark), piece.path, len(mark))
    data = memoryview(bytes(mark) + bytes(rest))
    try:
        while True:
            data = yield reader.send(data)
    except StopIteration as stop:
        event: Event = stop.value
        return event


def _read_message(record: type[Any], limits: Limits) -> Reader[Event]:
    event: Event | None = yield from read_message(MESSAGES[record], record.__name__, limits)
    # Only a list of weights can end where a message could stand.
    return WeightsEnd() if event is None else event


#: What may come in each phase, whoever's turn it is.
READERS: Mapping[Phase, Callable[[Limits], Reader[Event]]] = MappingProxyType(
    {
        phase: partial(_read_answer if ROOT_LINK[phase].speaker is Role.WORKER else _read_ack, kind)
        for phase, kind in ACK_PHASES.items()
    }
    | {
        Phase.GREETING: partial(_read_message, Greeting),
        Phase.NET_CONFIG: partial(_read_message, NetConfig),
        Phase.NODE_CONFIG: partial(_read_message, NodeConfig),
        Phase.WEIGHTS: partial(_read_message, WeightHeader),
        Phase.IDLE: partial(_read_message, ControlPacket),
    }
)
