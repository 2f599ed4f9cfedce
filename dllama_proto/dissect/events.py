"""What a dissection yields: typed events, each with its time, its place in a stream, and its bytes.

Every captured byte of a session belongs to exactly one :class:`MessageEvent`, :class:`WeightEvent`,
:class:`SliceEvent` or :class:`UnexplainedEvent`; what was sent but not captured, to a
:class:`MissingEvent`. Times are nanoseconds since 1970, offsets count the bytes of one direction of a
connection from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dllama_proto._phases import Phase
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Ack, WeightsEnd
from dllama_proto.messages import (
    ControlPacket,
    Greeting,
    NetConfig,
    NodeConfig,
    Refusal,
    Size3D,
    WeightHeader,
)
from dllama_proto.sync_plan import Transfer

__all__ = [
    "ClosedEvent",
    "FaultEvent",
    "Forward",
    "HOW_TO_RECORD",
    "Kind",
    "LinkKind",
    "Message",
    "MessageEvent",
    "MissingEvent",
    "NoticeEvent",
    "OpenedEvent",
    "Place",
    "SliceEvent",
    "Stream",
    "UnexplainedEvent",
    "WeightEvent",
    "WireEvent",
]

#: What helps where a capture lacks something that a session cannot be understood without.
HOW_TO_RECORD = "record whole packets, from before the root starts: tcpdump -i any -s 0 -w FILE port PORT"

Message = Greeting | Ack | Refusal | NetConfig | NodeConfig | WeightsEnd | ControlPacket


class Kind(StrEnum):
    """The name of each kind of event, as filters and JSON have it."""

    OPENED = "opened"
    CLOSED = "closed"
    GREETING = "greeting"
    ACK = "ack"
    NET_CONFIG = "net_config"
    NODE_CONFIG = "node_config"
    WEIGHT = "weight"
    WEIGHTS_END = "weights_end"
    CONTROL = "control"
    #: A worker cannot go on, and says why.
    REFUSAL = "refusal"
    SLICE = "slice"
    #: Bytes that were sent but not captured.
    MISSING = "missing"
    #: Bytes that were captured but mean nothing here.
    UNEXPLAINED = "unexplained"
    #: A byte that breaks the protocol.
    FAULT = "fault"
    #: Something about the capture that a reader should know.
    NOTICE = "notice"


class LinkKind(StrEnum):
    """Whose connection it is."""

    ROOT = "root"
    PEER = "peer"
    #: Part of a session, or perhaps one; too little was captured to tell.
    UNKNOWN = "unknown"
    #: Something else that the capture has as well.
    FOREIGN = "foreign"


@dataclass(slots=True, eq=False)
class Stream:
    """One direction of a TCP connection; ``connection`` numbers those of a capture.

    ``session`` and the nodes are None until they are known.
    """

    connection: int
    source: Endpoint
    destination: Endpoint
    link: LinkKind = LinkKind.UNKNOWN
    session: int | None = None
    sender: int | None = None
    receiver: int | None = None
    #: Bytes by what became of them: captured and understood, sent but not captured, not understood.
    explained: int = 0
    missing: int = 0
    unexplained: int = 0

    def __str__(self) -> str:
        if self.sender is None or self.receiver is None:
            return f"{self.source} > {self.destination}"
        return f"node {self.sender} > node {self.receiver}"


@dataclass(frozen=True, slots=True)
class Forward:
    """One walk through the model, begun by a control packet: rows ``position`` … of the context."""

    session: int
    index: int
    position: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model a segment is; ``layer`` is None before and after the layers."""

    layer: int | None
    part: str

    def __str__(self) -> str:
        return self.part if self.layer is None else f"layer {self.layer} {self.part}"


@dataclass(frozen=True, slots=True)
class WireEvent:
    """Base of all events: ``size`` bytes from byte ``offset`` of ``stream``.

    ``began`` is when the first of them was captured, ``time`` when the last. ``raw`` are the bytes
    themselves, but for the bulk of weights and for what was not captured.
    """

    time: int
    began: int
    stream: Stream | None
    offset: int
    size: int
    raw: memoryview = field(repr=False)

    @property
    def kind(self) -> Kind:
        """What it is."""
        raise NotImplementedError


_MESSAGE_KINDS: dict[type, Kind] = {
    Greeting: Kind.GREETING,
    Ack: Kind.ACK,
    NetConfig: Kind.NET_CONFIG,
    NodeConfig: Kind.NODE_CONFIG,
    WeightsEnd: Kind.WEIGHTS_END,
    ControlPacket: Kind.CONTROL,
    Refusal: Kind.REFUSAL,
}


@dataclass(frozen=True, slots=True)
class MessageEvent(WireEvent):
    """A whole message. ``forward`` is the one that a control packet begins."""

    message: Message
    forward: Forward | None = None

    @property
    def kind(self) -> Kind:
        """The kind of the message."""
        return _MESSAGE_KINDS[type(self.message)]


@dataclass(frozen=True, slots=True)
class WeightEvent(WireEvent):
    """A piece of a weight: its header (``raw``) and its data, which are not kept.

    ``size`` counts both; of ``header.n_bytes`` bytes of data ``data_size`` came before the stream ended, and
    ``missing`` of those were not captured. ``shape`` is that of the whole weight on this node, all experts
    of it; None where the configuration was not captured.
    """

    header: WeightHeader
    data_size: int
    missing: int
    shape: Size3D | None

    @property
    def expert(self) -> int | None:
        """The expert that the piece belongs to; None where the weight has none."""
        if self.shape is None or self.shape.z <= 1:
            return None
        return self.header.offset // self.shape.n_bytes_xy

    @property
    def kind(self) -> Kind:
        """``Kind.WEIGHT``."""
        return Kind.WEIGHT


@dataclass(frozen=True, slots=True)
class SliceEvent(WireEvent):
    """One node's slice of one row in one sync; ``pipe`` is the pipe's name.

    ``raw`` is empty where ``missing`` bytes of it were not captured. Where the capture ends within the
    slice, ``size`` is less than ``transfer.size``.
    """

    forward: Forward
    transfer: Transfer
    row: int
    pipe: str
    place: Place
    missing: int

    @property
    def kind(self) -> Kind:
        """``Kind.SLICE``."""
        return Kind.SLICE

    @property
    def position(self) -> int:
        """The row's position in the context."""
        return self.forward.position + self.row


@dataclass(frozen=True, slots=True)
class MissingEvent(WireEvent):
    """Bytes that were sent but not captured; ``within`` says what they were part of."""

    within: str

    @property
    def kind(self) -> Kind:
        """``Kind.MISSING``."""
        return Kind.MISSING


@dataclass(frozen=True, slots=True)
class UnexplainedEvent(WireEvent):
    """Bytes that were captured but cannot be given a meaning, and why."""

    reason: str

    @property
    def kind(self) -> Kind:
        """``Kind.UNEXPLAINED``."""
        return Kind.UNEXPLAINED


@dataclass(frozen=True, slots=True)
class FaultEvent(WireEvent):
    """A byte that breaks the protocol: the field, what was expected, what is there."""

    path: str
    expected: str
    got: str
    hint: str

    @property
    def kind(self) -> Kind:
        """``Kind.FAULT``."""
        return Kind.FAULT


@dataclass(frozen=True, slots=True)
class OpenedEvent(WireEvent):
    """A connection turns out to be part of a session."""

    @property
    def kind(self) -> Kind:
        """``Kind.OPENED``."""
        return Kind.OPENED


@dataclass(frozen=True, slots=True)
class ClosedEvent(WireEvent):
    """The sender has closed its direction; ``phase`` is what would have come next on the link."""

    phase: Phase
    reset: bool

    @property
    def kind(self) -> Kind:
        """``Kind.CLOSED``."""
        return Kind.CLOSED


@dataclass(frozen=True, slots=True)
class NoticeEvent(WireEvent):
    """Something about the capture that a reader should know; ``stream`` is None for the file itself."""

    text: str

    @property
    def kind(self) -> Kind:
        """``Kind.NOTICE``."""
        return Kind.NOTICE
