"""TCP segments to streams: what each end said, in order, and which bytes of it were not captured.

Follows RFC 9293 from the side: nothing is sent, so nothing can be asked for again. What arrives early waits
for what is before it; what is missing is given up once the receiver has acknowledged it (so it was
transmitted, and only the recording lacks it) and some more packets have come, or where too much waits. Bytes
are never made up: a :class:`Sink` is told how many are missing.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Protocol

from dllama_proto.dissect.frames import ACK, FIN, RST, SYN, Segment, address_of_key, reverse_key

__all__ = ["Conversation", "Direction", "Sink", "TcpStreams"]

_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_ENDS = SYN | FIN | RST

#: Packets of a connection to wait for before acknowledged bytes are given up: captures swap neighbours.
_PATIENCE = 16
#: What may wait behind a gap at most.
_MAX_AHEAD_BYTES = 4 * 1024 * 1024
_MAX_AHEAD_SEGMENTS = 1024
#: Segments kept to compare retransmissions with.
_N_RECENT = 16


class Sink(Protocol):
    """Who reads one direction of a connection."""

    def data(self, time: int, view: memoryview) -> None:
        """Take the next bytes, captured at ``time``."""

    def missing(self, time: int, n: int) -> None:
        """Learn that the next ``n`` bytes were not captured."""

    def end(self, time: int, *, reset: bool) -> None:
        """Learn that nothing follows; ``reset``: the connection was aborted."""


#: Where it begins, when it was captured, what of it, how many more bytes of it were not.
_Ahead = tuple[int, int, memoryview, int]


def _start(ahead: _Ahead) -> int:
    return ahead[0]


def _signed(difference: int) -> int:
    difference &= _MASK
    return difference - (1 << 32) if difference & _HALF else difference


class Direction:
    """One direction of a connection; ``offset`` bytes of it have been told to the sink."""

    def __init__(self, conversation: Conversation, key: bytes) -> None:
        self.conversation = conversation
        self.key = key
        self.source, self.source_port, self.destination, self.destination_port = address_of_key(key)
        self.sink: Sink | None = None
        self.other: Direction = self
        self.offset = 0
        #: Whether the first byte of the stream is known to be byte 0.
        self.begun = False
        self.ended = False
        self.n_packets = 0
        self.retransmitted_bytes = 0
        #: Sequence number of byte ``offset``; None until it is known where the stream begins.
        self._next: int | None = None
        self._ahead: list[_Ahead] = []
        self._ahead_bytes = 0
        self._early: list[tuple[int, int, memoryview, int, int]] = []
        self._waited = 0
        #: Highest acknowledgement that the other end sent for this direction.
        self._acknowledged: int | None = None
        self._end_offset: int | None = None
        self._recent: deque[tuple[int, memoryview]] = deque(maxlen=_N_RECENT)

    # Beginning ------------------------------------------------------------------------------------

    def begin(self, sequence: int, *, known: bool) -> None:
        """Learn the sequence number of byte 0; ``known``: that it is the first byte of all."""
        if self._next is not None:
            return
        self._next, self.begun = sequence, known
        early, self._early = self._early, []
        for item in early:
            self._add(*item)

    def begun_at(self, sequence: int) -> bool:
        """Tell whether the stream is known to begin with this number, or nothing speaks against it."""
        return self._next is None or _signed(self._next - self.offset - sequence) == 0

    @property
    def has_more(self) -> bool:
        """Whether bytes have come that the sink was not told of yet."""
        return bool(self._ahead)

    def _begin_in_the_middle(self) -> None:
        if self._next is None and self._early:
            first = self._early[0][1]
            self.begin(first + min(_signed(item[1] - first) for item in self._early) & _MASK, known=False)

    # Segments -------------------------------------------------------------------------------------

    def add(self, time: int, segment: Segment) -> None:
        """Take a segment of this direction."""
        _, sequence, acknowledgement, flags, payload, missing = segment
        self.n_packets += 1
        other = self.other
        if acknowledgement != other._acknowledged and flags & ACK and not flags & RST:
            known = other._acknowledged
            if known is None or (acknowledgement - known) & _MASK < _HALF:
                other._acknowledged = acknowledgement
        if other._ahead or other._early:
            other._wait(time)
        if sequence == self._next and not (flags & _ENDS or missing or self._ahead or self.ended):
            if payload:
                # As _deliver does; this is where weights pass.
                n = len(payload)
                self._recent.append((self.offset, payload))
                self.offset += n
                self._next = sequence + n & _MASK
                if self.sink is not None:
                    self.sink.data(time, payload)
            return
        self._add(time, sequence, payload, missing, flags)

    def _add(self, time: int, sequence: int, payload: memoryview, missing: int, flags: int) -> None:
        if flags & SYN:
            sequence = sequence + 1 & _MASK
        if self._next is None:
            self._early.append((time, sequence, payload, missing, flags & ~SYN))
            self._wait(time)
            return
        start = self.offset + _signed(sequence - self._next)
        end = start + len(payload) + missing
        if flags & FIN and self._end_offset is None and end >= self.offset:
            self._end_offset = end
        if end > start and not self.ended:
            if start > self.offset:
                self._keep(time, start, payload, missing)
            else:
                self._overlap(time, start, payload, missing)
        self._drain(time)
        if flags & RST and not self.ended:
            self.give_up(time)
            self._end(time, reset=True)

    def _keep(self, time: int, start: int, payload: memoryview, missing: int) -> None:
        if not self._ahead:
            self._waited = 0
        insort(self._ahead, (start, time, payload, missing), key=_start)
        self._ahead_bytes += len(payload)
        self._wait(time)

    def _overlap(self, time: int, start: int, payload: memoryview, missing: int) -> None:
        """Take what is new of a segment that begins in what was told already, or at its end."""
        known = self.offset - start
        if known:
            self.retransmitted_bytes += min(known, len(payload))
            # A keep-alive probe repeats one byte, of any value.
            if len(payload) > 1:
                self._compare(time, start, payload[:known])
        if known < len(payload):
            self._deliver(time, payload[known:])
            known = len(payload)
        left = len(payload) + missing - known
        if left > 0:
            self._skip(time, left)

    def _compare(self, time: int, start: int, payload: memoryview) -> None:
        for known_start, known in self._recent:
            first = max(start, known_start)
            n = min(start + len(payload), known_start + len(known)) - first
            if n > 0:
                one, two = first - start, first - known_start
                if payload[one : one + n] != known[two : two + n]:
                    self.conversation.streams.conflict(time, self, first, n)

    def _deliver(self, time: int, payload: memoryview) -> None:
        n = len(payload)
        self._recent.append((self.offset, payload))
        self.offset += n
        self._next = self._next + n & _MASK  # type: ignore[operator]
        if self.sink is not None:
            self.sink.data(time, payload)

    def _skip(self, time: int, n: int) -> None:
        self.offset += n
        self._next = self._next + n & _MASK  # type: ignore[operator]
        if self.sink is not None:
            self.sink.missing(time, n)

    def _drain(self, time: int) -> None:
        while self._ahead and self._ahead[0][0] <= self.offset:
            start, captured, payload, missing = self._ahead.pop(0)
            self._ahead_bytes -= len(payload)
            self._waited = 0
            if start + len(payload) + missing > self.offset:
                self._overlap(captured, start, payload, missing)
            elif len(payload) > 1:
                self.retransmitted_bytes += len(payload)
                self._compare(captured, start, payload)
        if self._end_offset is not None and self.offset >= self._end_offset and not self._ahead:
            self._end(time, reset=False)

    # Giving up ------------------------------------------------------------------------------------

    def _wait(self, time: int) -> None:
        """Count a packet that did not close the gap, and give the gap up where that has gone on too long."""
        self._waited += 1
        if self._next is None:
            if self._waited > _PATIENCE:
                self._begin_in_the_middle()
        elif self._ahead:
            late = self._waited > _PATIENCE and self._acknowledged_offset() >= self._ahead[0][0]
            if late or self._ahead_bytes > _MAX_AHEAD_BYTES or len(self._ahead) > _MAX_AHEAD_SEGMENTS:
                self._skip(time, self._ahead[0][0] - self.offset)
                self._drain(time)

    def _acknowledged_offset(self) -> int:
        if self._acknowledged is None or self._next is None:
            return 0
        return self.offset + _signed(self._acknowledged - self._next)

    def give_up(self, time: int) -> None:
        """Wait for nothing more: tell what came behind gaps, and what was acknowledged but not captured."""
        self._begin_in_the_middle()
        while self._ahead:
            self._skip(time, self._ahead[0][0] - self.offset)
            self._drain(time)
        # Of a direction that was not captured at all nothing is known but how much its reader has had.
        end = self._acknowledged_offset() if self.n_packets else 0
        if self._end_offset is not None:
            end = self._end_offset
        elif end == self.offset + 1:
            # The end of a stream takes a number too: a FIN that was not captured looks like this.
            end = self.offset
        if end > self.offset and not self.ended:
            self._skip(time, end - self.offset)
        self._drain(time)

    def _end(self, time: int, *, reset: bool) -> None:
        if not self.ended:
            self.ended = True
            if self.sink is not None:
                self.sink.end(time, reset=reset)


class Conversation:
    """One TCP connection: ``dialler`` is the direction of the end that dialled, as far as that is known."""

    def __init__(self, streams: TcpStreams, number: int, key: bytes, time: int) -> None:
        self.streams = streams
        self.number = number
        self.time = time
        #: Whether it is known who dialled.
        self.dialled = False
        self.dialler = Direction(self, key)
        self.listener = Direction(self, reverse_key(key))
        self.dialler.other, self.listener.other = self.listener, self.dialler

    def learn(self, direction: Direction, sequence: int, acknowledgement: int, flags: int) -> None:
        """Learn from a packet, before its payload is looked at, where streams begin and who dialled."""
        if flags & SYN:
            is_dialler = not flags & ACK
            if (direction is self.dialler) is not is_dialler:
                self.dialler, self.listener = self.listener, self.dialler
            self.dialled = True
            direction.begin(sequence + 1 & _MASK, known=True)
            if not is_dialler:
                # What the answer acknowledges is the dialler's SYN, captured or not.
                direction.other.begin(acknowledgement, known=True)
        elif (
            flags & ACK
            and direction is self.dialler
            and direction.begun
            and not direction.offset
            and direction.begun_at(sequence)
        ):
            # The dialler has said nothing yet, and in this protocol a listener only answers.
            direction.other.begin(acknowledgement, known=True)


class TcpStreams:
    """Sorts segments by connection; ``opened`` is called for each new one and may set its sinks."""

    def __init__(
        self,
        opened: Callable[[Conversation], None],
        conflict: Callable[[int, Direction, int, int], None],
    ) -> None:
        self._opened = opened
        #: Called with time, direction, offset and size of bytes that were sent twice with other content.
        self.conflict = conflict
        self._directions: dict[bytes, Direction] = {}
        self._n_conversations = 0

    def add(self, time: int, segment: Segment) -> None:
        """Take the next segment of the capture."""
        key, sequence, acknowledgement, flags = segment[:4]
        direction = self._directions.get(key)
        if direction is None or (flags & SYN and not direction.begun_at(sequence + 1 & _MASK)):
            direction = self._open(time, key)
        if flags & SYN or direction.other._next is None:
            direction.conversation.learn(direction, sequence, acknowledgement, flags)
        direction.add(time, segment)

    def finish(self, time: int) -> None:
        """Tell all that waits: the capture has ended."""
        for direction in self._directions.values():
            direction.give_up(time)

    def _open(self, time: int, key: bytes) -> Direction:
        old = self._directions.get(key)
        if old is not None:
            # The same addresses and ports again: the connection before is over.
            old.give_up(time)
            old.other.give_up(time)
            old._end(time, reset=False)
            old.other._end(time, reset=False)
        conversation = Conversation(self, self._n_conversations, key, time)
        self._n_conversations += 1
        self._directions[key] = conversation.dialler
        self._directions[conversation.listener.key] = conversation.listener
        self._opened(conversation)
        return conversation.dialler
