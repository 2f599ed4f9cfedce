"""The link between the root and a worker: messages, weights, and the slices between the two.

An ack is known even when it was not captured. Where the header of a weight is missing, the next one is looked
for. Any other message says what only it can say: without it the link is lost until the next handshake.
"""

from __future__ import annotations

from collections.abc import Callable

from dllama_proto._phases import ACK_PHASES, Phase, Role
from dllama_proto.connection import Connection
from dllama_proto.dissect.events import (
    FaultEvent,
    LinkKind,
    MessageEvent,
    MissingEvent,
    Stream,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.links import LinkDecoder, SessionFacts
from dllama_proto.dissect.tcp import Direction
from dllama_proto.dissect.weight_search import WeightSearch
from dllama_proto.errors import RemoteProtocolError
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
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.messages import ControlPacket, WeightHeader
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES

__all__ = ["RootLinkDecoder"]

_NOTHING = memoryview(b"")
_UNKNOWN_WEIGHTS = "weights whose header was not captured"


class RootLinkDecoder(LinkDecoder):
    """The link between the root (who dialled, and speaks first) and worker ``node``."""

    kind = LinkKind.ROOT

    def __init__(
        self,
        session: SessionFacts,
        emit: Callable[[WireEvent], None],
        directions: tuple[Direction, Direction],
        streams: tuple[Stream, Stream],
        node: int,
    ) -> None:
        ends = (Connection(Role.WORKER), Connection(Role.ROOT))
        super().__init__(session, emit, directions, streams, ends)
        self.node = node
        self.stopped = False
        streams[0].sender = streams[1].receiver = 0
        streams[1].sender = streams[0].receiver = node
        #: Parts of the message at hand.
        self._parts: dict[Half, list[memoryview]] = {half: [] for half in self.halves}
        #: When the first byte of it was captured, and the last.
        self._began: dict[Half, int] = {}
        self._taken: dict[Half, int] = {}
        self._header: tuple[WeightHeader, int, int, memoryview] | None = None
        self._bulk_missing = 0
        #: Set while the header of the next weight is looked for.
        self._search: WeightSearch | None = None
        #: Where the data that is gone over meanwhile begins.
        self._unknown_from: int | None = None
        self._looked = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be understood, or is to come."""
        return bool(self._lost) or self.stopped

    # Messages ------------------------------------------------------------------------------------------

    def _message(self, half: Half) -> bool:
        if self._search is not None:
            return self._look(self._search, half)
        link, fed = half.link, False
        while True:
            try:
                event = link.next_event()
            except RemoteProtocolError as error:
                self._fault(half, error)
                return True
            if event is NEED_DATA:
                if link.phase is Phase.CLOSED:
                    self._lose(half, "a session ends with its stop packet")
                    return True
                if not self._feed(half):
                    return fed
                if self._lost or self._search is not None:
                    return True
                fed = True
            elif event is PAUSED or isinstance(event, NoEvent | Closed | PayloadChunk | SliceData):
                return fed | self._assume_other(half)
            else:
                self._received(half, event)
                return True

    def _feed(self, half: Half) -> bool:
        """Give the receiver the bytes that it waits for."""
        n = half.link.n_wanted
        parts = self._parts[half]
        if half.ready >= n:
            if not parts:
                self._began[half] = half.first_time
            self._taken[half], view = half.take(n)
            parts.append(view)
            half.link.receive_data(view)
            return True
        if half.pending == half.ready:
            return False
        phase = half.link.phase
        if phase in ACK_PHASES and half.gap >= len(ACK_BYTES):
            self._missing(half, len(ACK_BYTES), f"Ack({ACK_PHASES[phase].name})")
            self._assume(half, ACK_BYTES)
            return True
        if phase is Phase.WEIGHTS and isinstance(half.link, Connection):
            self._unfinished(half, _UNKNOWN_WEIGHTS)
            half.link.restart_message()
            self._search = WeightSearch(self.session.weights_of(self.node), DEFAULT_LIMITS)
            return True
        self._lose(half, f"bytes of {phase.name} were not captured")
        return True

    def _assume(self, half: Half, data: bytes) -> None:
        """Go on as if a message had been captured of which it is known that it was said, and how."""
        half.link.receive_data(data)
        event = half.link.next_event()
        if not isinstance(event, Ack | WeightsEnd):
            raise RuntimeError(f"{data!r} was read as {event!r}: a bug of the reader")
        self._relay(half, event)

    def _assume_other(self, half: Half) -> bool:
        """Go on without the other direction, where nothing of it was captured at all."""
        other = self.other(half)
        if other.direction.n_packets or not half.pending:
            return False
        if other.link.phase in ACK_PHASES:
            self._never_captured(other, len(ACK_BYTES), f"Ack({ACK_PHASES[other.link.phase].name})")
            self._assume(other, ACK_BYTES)
            return True
        if n := other.link.payload_size:
            self._never_captured(other, n, "slices of a forward")
            self._count(other, n)
            return True
        return False

    def _never_captured(self, half: Half, n: int, within: str) -> None:
        half.stream.missing += n
        time = self.other(half).time
        self._emit(MissingEvent(time, time, half.stream, half.offset, n, _NOTHING, within))
        half.offset += n

    def _received(self, half: Half, event: Event) -> None:
        parts = self._parts[half]
        raw = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        parts.clear()
        began = self._began.get(half, half.time)
        offset = half.offset - len(raw)
        half.stream.explained += len(raw)
        if isinstance(event, WeightHeader):
            self._header = (event, offset, began, raw)
            self._relay(half, event)
            half.bulk = event.n_bytes
            if not half.bulk:
                self._end_bulk(half, self._taken[half])
            return
        forward = None
        if isinstance(event, ControlPacket):
            self.stopped = event.is_stop
            if not event.is_stop:
                forward = self._forward = self.session.begin_forward(self.n_forwards, event, half.stream)
                self.n_forwards += 1
        self._relay(half, event)
        self._emit(
            MessageEvent(self._taken[half], began, half.stream, offset, len(raw), raw, event, forward)  # type: ignore[arg-type]
        )

    def _relay(self, half: Half, event: Event) -> None:
        """Tell the sender's connection what it has sent, and the session."""
        sender = self.other(half).link
        if not isinstance(sender, Connection):
            raise RuntimeError("a root link without its connections")
        sender.send(event)
        self.session.learn(self.node, event)

    def _fault(self, half: Half, error: RemoteProtocolError) -> None:
        parts = self._parts[half]
        n = sum(map(len, parts))
        at = half.offset - n + min(error.offset or 0, n)
        self._emit(
            FaultEvent(
                half.time,
                half.time,
                half.stream,
                at,
                0,
                _NOTHING,
                error.path,
                error.expected,
                error.got,
                error.hint,
            )
        )
        self._unfinished(half, f"it breaks the protocol: {error}")
        self._lose(half, f"{error.path} breaks the protocol")

    def _unfinished(self, half: Half, reason: str) -> None:
        """Report the parts of a message that did not become whole."""
        parts = self._parts[half]
        if parts:
            raw = memoryview(b"".join(parts))
            parts.clear()
            began = self._began.get(half, half.time)
            self._unexplained(half, half.offset - len(raw), raw, half.time, began, reason)

    def _lose(self, half: Half, reason: str) -> None:
        self._search = None
        self._tell_unknown(self.halves[0])
        for each in self.halves:
            self._end_bulk_early(each)
            self._unfinished(each, reason)
        super()._lose(half, reason)

    def _finish_half(self, half: Half, why: str) -> None:
        if half is self.halves[0]:
            self._tell_unknown(half)
        self._end_bulk_early(half)
        self._end_partial(half)
        reason = self._lost or f"{why} before it is whole ({half.link.phase.name})"
        self._unfinished(half, reason)
        self._explain_rest(half, reason)

    # Weights whose header is missing -------------------------------------------------------------------

    def _look(self, search: WeightSearch, half: Half) -> bool:
        """Go over data of weights until a header comes, or the worker says that it has all of them."""
        root, worker = self.halves
        has_all = worker.ready >= len(ACK_BYTES) and not root.gap
        # What the root says later is no weight; nor is there one on its way, if nothing waits behind a gap.
        later = worker.first_time < root.first_time if root.pending else not root.direction.has_more
        if has_all and later:
            # What came last is the end of the weights, captured or not.
            kept, is_end = search.end()
            self._end_search(root, kept[-len(WEIGHTS_END_BYTES) :] if is_end else b"")
            if not is_end:
                self._assume(root, WEIGHTS_END_BYTES)
            return True
        if half is worker:
            return False
        if half.gap:
            search.end()
            self._tell_unknown(half)
            self._missing(half, half.gap, _UNKNOWN_WEIGHTS)
            return True
        if not half.ready:
            return False
        if self._unknown_from is None:
            self._unknown_from = half.offset
        self._looked, view = half.take_chunk()
        found = search.look(view)
        if found is not None:
            self._end_search(half, found)
        return True

    def _end_search(self, half: Half, rest: bytes) -> None:
        """Go on reading with ``rest``, which was taken last."""
        self._search = None
        half.put_back(self._looked, memoryview(rest))
        self._tell_unknown(half)

    def _tell_unknown(self, half: Half) -> None:
        """Report the data that was gone over."""
        start, self._unknown_from = self._unknown_from, None
        if start is not None and half.offset > start:
            n = half.offset - start
            half.stream.unexplained += n
            self._emit(
                UnexplainedEvent(half.time, half.time, half.stream, start, n, _NOTHING, _UNKNOWN_WEIGHTS)
            )

    # Weights -------------------------------------------------------------------------------------------

    def _bulk(self, half: Half) -> bool:
        if half.gap:
            n = min(half.bulk, half.gap)
            header = self._header[0] if self._header else None
            self._missing(half, n, f"weight {header.name!r} of index {header.op_index}" if header else "")
            self._bulk_missing += n
            time = half.time
        elif half.ready:
            n = min(half.bulk, half.ready)
            time = half.drop(n)
        else:
            return False
        half.bulk -= n
        if not half.bulk:
            self._end_bulk(half, time)
        return True

    def _end_bulk(self, half: Half, time: int) -> None:
        """Report a piece of a weight, whole or as far as it came."""
        if self._header is None:
            raise RuntimeError("bytes of a weight without a header: a bug of the decoder")
        header, offset, began, raw = self._header
        self._header = None
        size = header.n_bytes - half.bulk
        half.bulk = 0
        half.stream.explained += size - self._bulk_missing
        if half.link.payload_size:
            half.link.payload_received(size)
            self.other(half).link.payload_sent(size)
        self._emit(
            WeightEvent(
                time,
                began,
                half.stream,
                offset,
                len(raw) + size,
                raw,
                header,
                size,
                self._bulk_missing,
                self.session.weight_shape(self.node, header),
            )
        )
        self._bulk_missing = 0

    def _end_bulk_early(self, half: Half) -> None:
        if half.bulk:
            self._end_bulk(half, half.time)
