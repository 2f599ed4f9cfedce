"""The conversation between root and worker, without a socket: bytes in, events out; events in, bytes out.

A :class:`Connection` is one end of the link between the root and one worker. It knows whose turn it is,
checks everything that comes in against what was agreed before, refuses to send what must not be sent,
and never touches the bytes of a payload that its caller receives or sends itself.

A worker reads like this (``link`` being some socket of its own)::

    connection = Connection(Role.WORKER)
    while (event := connection.next_event()) is NEED_DATA:
        data = link.recv(connection.n_wanted)
        connection.receive_data(data) if data else connection.receive_eof()

and answers with ``link.sendall(connection.send(Ack(AckKind.GREETING)))``. A piece of a weight can be
received in place, once its :class:`~dllama_proto.messages.WeightHeader` was returned::

    view = memory[header.offset : header.offset + header.n_bytes]
    n = connection.take_payload(view)
    while n < len(view):
        k = link.recv_into(view[n:])
        connection.payload_received(k)
        n += k

The same way go the slices of a forward, in both directions at once, after a
:class:`~dllama_proto.messages.ControlPacket` (see :mod:`dllama_proto.sync_plan` for which they are):
``payload_size`` bytes are received and reported with ``payload_received``, ``unsent_size`` bytes are
sent and reported with ``payload_sent``, in portions of any size. When both are 0, the next control
packet may come. Whoever prefers events leaves the payload alone and gets
:class:`~dllama_proto.events.PayloadChunk` and :class:`~dllama_proto.events.SliceData`.

A worker that cannot go on may send a :class:`~dllama_proto.messages.Refusal` until it is ready, also when it
is the root's turn. A root gets it in place of the next ack; one that finds its socket readable before that
passes the bytes on, and ``next_event`` returns the refusal at once.
"""

from __future__ import annotations

from dllama_proto._agreement import Agreement
from dllama_proto._base_connection import BaseConnection
from dllama_proto._payload import WeightPayload
from dllama_proto._phases import (
    ACK_PHASES,
    FIRST_PHASE,
    REFUSAL_PHASES,
    ROOT_LINK,
    AckKind,
    Phase,
    Role,
    Signal,
)
from dllama_proto._readers import READERS, read_refusal
from dllama_proto.codec import encode
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import (
    NEED_DATA,
    PAUSED,
    Ack,
    Closed,
    Event,
    NoEvent,
    PayloadChunk,
    SliceData,
    WeightsEnd,
)
from dllama_proto.formatting import counted
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal, WeightHeader
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.incremental import Piece, Reader
from dllama_proto.schemas.layout import offset_of
from dllama_proto.schemas.refusal import REFUSAL_BYTES

__all__ = [
    "Ack",
    "AckKind",
    "Closed",
    "Connection",
    "Event",
    "NEED_DATA",
    "NoEvent",
    "PAUSED",
    "PayloadChunk",
    "Phase",
    "Role",
    "SliceData",
    "WeightsEnd",
]

_SIGNALS: dict[type[Event], Signal] = {
    Greeting: Signal.GREETING,
    Ack: Signal.ACK,
    NetConfig: Signal.NET_CONFIG,
    NodeConfig: Signal.NODE_CONFIG,
    WeightHeader: Signal.WEIGHT_HEADER,
    WeightsEnd: Signal.WEIGHTS_END,
    Refusal: Signal.REFUSAL,
}

#: After which message nothing follows.
_LAST_PHASES = {Phase.CLOSED: "stop packet", Phase.REFUSED: "refusal"}


class Connection(BaseConnection):
    """One end of the link between the root and one worker; ``role`` is ours.

    What the other side says is held against ``limits`` before anything is allocated by it, and a whole
    message against everything agreed before. Records that are returned can be relied on: codes are known,
    sizes consistent, indexes in range.
    """

    def __init__(self, role: Role, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__()
        self.role = role
        self._limits = limits
        self._agreement = Agreement(limits)
        self._reader: Reader[Event] | None = None
        self._piece: Piece | None = None
        #: Whether the reader reads a refusal that came while it is our turn.
        self._is_being_refused = False
        self._enter(FIRST_PHASE)

    @property
    def is_our_turn(self) -> bool:
        """Whether a message of ours comes next (payloads do not count)."""
        return ROOT_LINK[self._phase].speaker is self.role

    @property
    def may_refuse(self) -> bool:
        """Whether we are a worker that may send a Refusal now, also after the root broke the protocol."""
        return self.role is Role.WORKER and self._is_refusable

    @property
    def may_be_refused(self) -> bool:
        """Whether we are a root whose worker may send a Refusal now, also while it is our turn."""
        return self.role is Role.ROOT and self._is_refusable

    def send(self, event: Event) -> bytes | memoryview:
        """Return the bytes of a message of ours, to be written to the socket, and remember it was sent.

        After a :class:`~dllama_proto.messages.WeightHeader` the caller owes its bytes, and after a
        :class:`~dllama_proto.messages.ControlPacket` of the root both sides owe slices: either written by
        the caller and reported with ``payload_sent``, or passed here as PayloadChunk and SliceData events
        (whose own ``data`` is then returned, no copy).

        Raises LocalProtocolError where this must not be sent, or not now.
        """
        if isinstance(event, PayloadChunk | SliceData):
            return self._send_payload(event)
        signal = _signal(event)
        if isinstance(event, Refusal) and self.may_refuse:
            data = encode(event)
            self._refuse()
            return data
        turn = ROOT_LINK[self._phase]
        if not self.is_our_turn or signal not in turn.next:
            may_say = ", ".join(allowed.name for allowed in turn.next) if self.is_our_turn else "nothing"
            raise LocalProtocolError(
                self._phase.name, expected=f"{may_say} to be sent", got=type(event).__name__
            )
        if isinstance(event, Ack) and event.kind is not ACK_PHASES[self._phase]:
            raise LocalProtocolError(
                self._phase.name, expected=f"Ack {ACK_PHASES[self._phase].name}", got=event.kind.name
            )
        for fault in self._agreement.faults(event):
            raise LocalProtocolError(fault.path, expected=fault.expected, got=fault.got, hint=fault.hint)
        data = encode(event)
        self._step(event, signal)
        return data

    def restart_message(self) -> None:
        """Forget what has come of the current message, and expect one from its first byte.

        For who reads a recording that lacks bytes, and knows where a message begins again; on a live link
        nothing can be missing.
        """
        self._buffer.clear()
        self._enter(self._phase)

    # How a conversation goes on -------------------------------------------------------------------

    def _next_event(self) -> Event | NoEvent:
        if self._incoming is not None:
            return self._next_of_payload()
        if self._phase in _LAST_PHASES:
            return self._after_the_end()
        if self._reader is None and self.may_be_refused:
            self._look_for_refusal()
        if self._reader is None or self._piece is None:
            return self._paused()
        while (data := self._buffer.take(self._piece.size)) is not None:
            try:
                self._piece = self._reader.send(data)
            except StopIteration as stop:
                return self._received(stop.value)
        if self._at_eof and not self._piece.offset and not len(self._buffer):
            return Closed(self._phase)
        return self._need_data()

    def _received(self, event: Event) -> Event:
        for fault in self._agreement.faults(event):
            raise RemoteProtocolError(
                fault.path,
                expected=fault.expected,
                got=fault.got,
                offset=offset_of(MESSAGES[type(event)], event, type(event).__name__, fault.path),
                hint=fault.hint,
            )
        self._step(event, _signal(event))
        return event

    def _after_the_end(self) -> Closed | NoEvent:
        if len(self._buffer):
            raise RemoteProtocolError(
                self._phase.name,
                expected=f"nothing after a {_LAST_PHASES[self._phase]}",
                got=counted(len(self._buffer), "byte"),
            )
        return Closed(self._phase) if self._at_eof else NEED_DATA

    def _step(self, event: Event, signal: Signal) -> None:
        """Enter the phase that this message of either side leads to."""
        if signal is Signal.REFUSAL:
            self._refuse()
            return
        self._agreement.learn(event)
        self._enter(ROOT_LINK[self._phase].next[signal])
        if isinstance(event, WeightHeader):
            payload = WeightPayload(event)
            if self.role is Role.ROOT:
                self._outgoing = payload
            else:
                self._incoming = payload
            self._payload_moved()
        elif isinstance(event, NodeConfig):
            self._plan_slices(self._agreement.link_plan(self.role))
        elif isinstance(event, ControlPacket) and not event.is_stop:
            self._begin_slices(event.batch_size)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._is_refusable = phase in REFUSAL_PHASES
        if self._is_being_refused and self._is_refusable:
            return  # we said something after the first bytes of a refusal had come: read on
        self._is_being_refused = False
        self._reader = self._piece = None
        if ROOT_LINK[phase].speaker not in (None, self.role) and phase in READERS:
            self._read_by(READERS[phase](self._limits))

    def _read_by(self, reader: Reader[Event]) -> None:
        self._reader, self._piece = reader, next(reader)

    def _look_for_refusal(self) -> None:
        """Begin to read a refusal, if one has come; whatever else came early waits for its turn."""
        if self._buffer.begins_with(REFUSAL_BYTES):
            self._is_being_refused = True
            self._read_by(read_refusal(self._limits))

    def _refuse(self) -> None:
        """Nothing follows a refusal; payloads under way are dropped."""
        self._incoming = self._outgoing = None
        self._enter(Phase.REFUSED)

    def _payload_done(self) -> None:
        self._enter(ROOT_LINK[self._phase].next[Signal.PAYLOAD_DONE])

    def _piece_size(self) -> int:
        if self._piece is not None:
            return self._piece.size
        # After the last message only the end of the stream may come: reading a byte is how to see it.
        return 1 if self._phase in _LAST_PHASES else super()._piece_size()

    def _place(self) -> tuple[str, int | None]:
        if self._piece is not None:
            return self._piece.path, self._piece.offset + len(self._buffer)
        return super()._place()


def _signal(event: Event) -> Signal:
    if isinstance(event, ControlPacket):
        return Signal.STOP if event.is_stop else Signal.FORWARD
    try:
        return _SIGNALS[type(event)]
    except KeyError:
        raise LocalProtocolError("send", expected="a message", got=repr(event)) from None
