"""What is read in each phase: the generator that asks for pieces and returns the event.

Payloads have no reader; see :mod:`dllama_proto._payload`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from dllama_proto._phases import ACK_PHASES, AckKind, Phase
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Ack, Event, WeightsEnd
from dllama_proto.limits import Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, WeightHeader
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import ACK_BYTES, ACK_NUMBER
from dllama_proto.schemas.incremental import Piece, Reader, read_message

__all__ = ["READERS"]


def _read_ack(kind: AckKind, limits: Limits) -> Reader[Event]:
    path = f"Ack({kind.name})"
    data = yield Piece(len(ACK_BYTES), path, 0)
    if data != ACK_BYTES:
        raise RemoteProtocolError(
            path,
            expected=f"{ACK_NUMBER} ({ACK_BYTES.hex(' ')})",
            got=f"{int.from_bytes(data, 'little')} ({data.hex(' ')})",
            offset=0,
        )
    return Ack(kind)


def _read_message(record: type[Any], limits: Limits) -> Reader[Event]:
    event: Event | None = yield from read_message(MESSAGES[record], record.__name__, limits)
    # Only a list of weights can end where a message could stand.
    return WeightsEnd() if event is None else event


#: What may come in each phase, whoever's turn it is.
READERS: Mapping[Phase, Callable[[Limits], Reader[Event]]] = MappingProxyType(
    {phase: partial(_read_ack, kind) for phase, kind in ACK_PHASES.items()}
    | {
        Phase.GREETING: partial(_read_message, Greeting),
        Phase.NET_CONFIG: partial(_read_message, NetConfig),
        Phase.NODE_CONFIG: partial(_read_message, NodeConfig),
        Phase.WEIGHTS: partial(_read_message, WeightHeader),
        Phase.IDLE: partial(_read_message, ControlPacket),
    }
)
