"""Links to events: both directions of a connection, each read by the connection of who received it.

Two sans-IO connections face each other, as the two programs did; what one receives, the other is told it has
sent. So the state machine of :mod:`dllama_proto.connection` is the only one there is, and what cannot be said
at some point is found here as a worker or root would find it.

This is what both kinds of link have in common: slices, in which missing bytes do no harm, since their sizes
are known; and what becomes of bytes that cannot be understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from dllama_proto._link import Link
from dllama_proto.dissect.events import (
    ClosedEvent,
    Forward,
    LinkKind,
    MissingEvent,
    NoticeEvent,
    Place,
    SliceEvent,
    Stream,
    UnexplainedEvent,
    WireEvent,
)
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.tcp import Direction
from dllama_proto.events import (
    Event,
)
from dllama_proto.messages import ControlPacket, Size3D, WeightHeader
from dllama_proto.sync_plan import Transfer
from dllama_proto.verify import WeightKey

__all__ = ["LinkDecoder", "SessionFacts"]

_NOTHING = memoryview(b"")

#: A slice larger than this is counted, not kept.
_MAX_SLICE = 64 * 1024 * 1024
#: What may wait for the other direction at most: a whole forward of slices is far less.
_MAX_WAITING = 64 * 1024 * 1024


class SessionFacts(Protocol):
    """What the links of a session tell it, and ask it."""

    number: int

    def learn(self, node: int, message: Event) -> None:
        """Learn from a message of the link between the root and worker ``node``."""

    def begin_forward(self, index: int, packet: ControlPacket, stream: Stream) -> Forward:
        """Return the forward that the ``index``-th control packet of a link begins."""

    def forward(self, index: int) -> Forward | None:
        """Return a forward, or None where it has not begun."""

    def pipe_name(self, pipe_index: int) -> str:
        """Return the name of a pipe."""

    def place(self, segment_index: int) -> Place:
        """Return where in the model a segment is."""

    def weight_shape(self, node: int, header: WeightHeader) -> Size3D | None:
        """Return the shape of the weight that a piece belongs to."""

    def weights_of(self, node: int) -> Mapping[WeightKey, int]:
        """Return the weights of a node, and their sizes in bytes."""


class LinkDecoder:
    """Base of both kinds of link; ``emit`` is called with every event."""

    kind = LinkKind.UNKNOWN

    def __init__(
        self,
        session: SessionFacts,
        emit: Callable[[WireEvent], None],
        directions: tuple[Direction, Direction],
        streams: tuple[Stream, Stream],
        links: tuple[Link, Link],
    ) -> None:
        self.session = session
        self._emit = emit
        for stream in streams:
            stream.link, stream.session = self.kind, session.number
        #: Who speaks first is first; ``links`` are the receivers'.
        self.halves = (
            Half(directions[0], streams[0], links[0], self),
            Half(directions[1], streams[1], links[1], self),
        )
        self._forward: Forward | None = None
        self.n_forwards = 0
        self._lost = ""
        self._moving = False
        self._closed: set[Half] = set()
        #: Of each direction, the slice of which only parts could be taken.
        self._partial: dict[Half, _Partial] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be understood."""
        return bool(self._lost)

    def other(self, half: Half) -> Half:
        """Return the other direction."""
        return self.halves[half is self.halves[0]]

    # What a half reports ---------------------------------------------------------------------------

    def moved(self, half: Half) -> None:
        """Understand as much as possible, in both directions."""
        if self._moving:
            return
        self._moving = True
        try:
            # What was understood in one direction may be what the other has waited for.
            while self._advance(half) | self._advance(self.other(half)):
                pass
        finally:
            self._moving = False
        for waiting in self.halves:
            if waiting.pending > _MAX_WAITING and not self._lost:
                self._lose(waiting, f"{waiting.pending} bytes wait for what the other side did not say")

    def closed(self, half: Half, time: int, *, reset: bool) -> None:
        """Account for what is left in a direction that has ended."""
        self.moved(half)
        self._closed.add(half)
        phase = half.link.phase
        self._finish_half(half, "the connection was closed")
        self._emit(ClosedEvent(time, time, half.stream, half.offset, 0, _NOTHING, phase, reset))

    def finish(self) -> None:
        """Account for everything that is left: the capture has ended."""
        for half in self.halves:
            self.moved(half)
        for half in self.halves:
            phase = half.link.phase
            self._finish_half(half, "the capture ends")
            if half not in self._closed:
                text = f"the capture ends before this connection does ({phase.name} comes next)"
                self._emit(NoticeEvent(half.time, half.time, half.stream, half.offset, 0, _NOTHING, text))

    def _finish_half(self, half: Half, why: str) -> None:
        self._end_partial(half)
        self._explain_rest(half, self._lost or f"{why} before it is whole ({half.link.phase.name})")

    # Understanding -----------------------------------------------------------------------------------

    def _advance(self, half: Half) -> bool:
        """Understand as much as possible of one direction; tell whether anything was."""
        happened = False
        while half.pending:
            if self._lost:
                self._explain_rest(half, self._lost)
                return False
            if not self._step(half):
                return happened
            happened = True
        return happened | self._idle(half)

    def _step(self, half: Half) -> bool:
        """Understand one thing, or take a part of one; tell whether that was possible."""
        link = half.link
        if half.bulk:
            return self._bulk(half)
        if link.next_slice is not None:
            return self._slice(half, *link.next_slice)
        return self._message(half)

    def _idle(self, half: Half) -> bool:
        """Do what can be done without bytes."""
        return False

    def _bulk(self, half: Half) -> bool:
        raise NotImplementedError

    def _message(self, half: Half) -> bool:
        raise NotImplementedError

    # Slices --------------------------------------------------------------------------------------------

    def _slice(self, half: Half, transfer: Transfer, row: int, byte: int) -> bool:
        wanted = transfer.size - byte
        if half not in self._partial:
            if half.ready >= wanted:
                began = half.first_time
                time, raw = half.take(wanted)
                self._count(half, wanted)
                self._emit_slice(half, transfer, row, time, began, raw, 0)
                return True
            if half.pending == half.ready and wanted <= _MAX_SLICE:
                return False
        if not half.pending:
            return False
        # A gap within the slice, or more of it than is kept: take it piece by piece.
        part = self._partial.setdefault(half, _Partial(transfer, row, half.first_time))
        n = min(wanted, half.ready or half.gap)
        if half.gap:
            self._missing(half, n, f"{transfer}, row {row}")
            part.missing += n
        else:
            half.drop(n)
        self._count(half, n)
        part.size += n
        if n == wanted:
            self._end_partial(half)
        return True

    def _count(self, half: Half, n: int) -> None:
        """Tell both ends that ``n`` bytes of slices have passed."""
        half.link.payload_received(n)
        self.other(half).link.payload_sent(n)

    def _end_partial(self, half: Half) -> None:
        """Report a slice that was taken piece by piece, or of which only the beginning came."""
        part = self._partial.pop(half, None)
        if part is not None:
            self._emit_slice(
                half, part.transfer, part.row, half.time, part.began, _NOTHING, part.missing, part.size
            )
        elif half.ready and half.link.next_slice is not None:
            transfer, row, _ = half.link.next_slice
            began = half.first_time
            time, raw = half.take(min(half.ready, transfer.size))
            self._emit_slice(half, transfer, row, time, began, raw, 0)

    def _emit_slice(
        self,
        half: Half,
        transfer: Transfer,
        row: int,
        time: int,
        began: int,
        raw: memoryview,
        missing: int,
        size: int | None = None,
    ) -> None:
        forward = self._forward_of(half)
        size = len(raw) if size is None else size
        half.stream.explained += size - missing
        self._emit(
            SliceEvent(
                time,
                began,
                half.stream,
                half.offset - size,
                size,
                raw,
                forward,
                transfer,
                row,
                self.session.pipe_name(transfer.pipe_index),
                self.session.place(transfer.segment_index),
                missing,
            )
        )

    def _forward_of(self, half: Half) -> Forward:
        if self._forward is None:
            raise RuntimeError("a slice outside of a forward: a bug of the phase table")
        return self._forward

    # What cannot be understood ------------------------------------------------------------------------

    def _missing(self, half: Half, n: int, within: str) -> None:
        """Report that the next ``n`` bytes were not captured, and go over them."""
        half.stream.missing += n
        self._emit(MissingEvent(half.time, half.time, half.stream, half.offset, n, _NOTHING, within))
        half.pass_gap(n)

    def _lose(self, half: Half, reason: str) -> None:
        """Give the link up: nothing that follows can be understood."""
        self._lost = reason
        for each in self.halves:
            each.skipping = True
        self._emit(
            NoticeEvent(
                half.time,
                half.time,
                half.stream,
                half.offset,
                0,
                _NOTHING,
                f"the rest of this connection cannot be understood: {reason}",
            )
        )

    def _explain_rest(self, half: Half, reason: str) -> None:
        """Report all that waits, or passed by, as not understood, or missing."""
        if half.skipped:
            n, half.skipped = half.skipped, 0
            offset = half.offset - n
            half.stream.unexplained += n
            self._emit(UnexplainedEvent(half.time, half.time, half.stream, offset, n, _NOTHING, reason))
        while half.pending:
            if half.gap:
                self._missing(half, half.gap, reason)
                continue
            began, offset, n = half.first_time, half.offset, half.ready
            time, raw = half.take(n)
            self._unexplained(half, offset, raw, time, began, reason)

    def _unexplained(
        self, half: Half, offset: int, raw: memoryview, time: int, began: int, reason: str
    ) -> None:
        half.stream.unexplained += len(raw)
        self._emit(UnexplainedEvent(time, began, half.stream, offset, len(raw), raw, reason))


class _Partial:
    """A slice that is taken piece by piece."""

    def __init__(self, transfer: Transfer, row: int, began: int) -> None:
        self.transfer = transfer
        self.row = row
        self.began = began
        self.size = self.missing = 0
