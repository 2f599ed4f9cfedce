"""What a connection reports and is told, beside the messages themselves (:mod:`dllama_proto.messages`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from dllama_proto._phases import AckKind, Phase
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal, WeightHeader
from dllama_proto.sync_plan import Transfer

__all__ = [
    "Ack",
    "AckKind",
    "Closed",
    "Event",
    "NEED_DATA",
    "NoEvent",
    "PAUSED",
    "PayloadChunk",
    "SliceData",
    "WeightsEnd",
]


class NoEvent(Enum):
    """Why ``next_event`` has nothing to report."""

    #: Bytes are missing: read ``n_wanted`` of them (or more), and pass them to ``receive_data``.
    NEED_DATA = auto()
    #: It is our turn: nothing more can be understood until something has been sent (or begun).
    PAUSED = auto()


NEED_DATA: Final = NoEvent.NEED_DATA
PAUSED: Final = NoEvent.PAUSED


@dataclass(frozen=True, slots=True)
class Ack:
    """The four bytes that say "go on"; ``kind`` says which of them, by its place in the session."""

    kind: AckKind


@dataclass(frozen=True, slots=True)
class PayloadChunk:
    """Some bytes of the announced piece of a weight; ``offset`` is where in the weight they belong.

    ``data`` shares memory with what was passed to ``receive_data``; it stays valid as long as it is held.
    """

    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class WeightsEnd:
    """The root has sent all weights it means to send: a name of length 0."""


@dataclass(frozen=True, slots=True)
class SliceData:
    """One node's whole slice of one row: ``data`` is ``transfer.size`` bytes.

    They belong at byte ``row * transfer.row_bytes + transfer.start`` of pipe ``transfer.pipe_index``.
    """

    transfer: Transfer
    row: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side closed the connection between two messages; ``phase`` is what came next.

    After a stop packet that is ``Phase.CLOSED``, after a refusal ``Phase.REFUSED``. With any other phase the
    session ended early.
    """

    phase: Phase


Event = (
    Greeting
    | Ack
    | Refusal
    | NetConfig
    | NodeConfig
    | WeightHeader
    | PayloadChunk
    | WeightsEnd
    | ControlPacket
    | SliceData
    | Closed
)
