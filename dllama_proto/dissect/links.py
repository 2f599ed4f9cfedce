"""Links to events: both directions of a connection, each read by the connection of who received it.

Two sans-IO connections face each other, as the two programs did; what one receives, the other is told it has
sent. So the state machine of :mod:`dllama_proto.connection` is the only one there is, and what cannot be said
at some point is found here as a worker or root would find it.

This is what both kinds of link have in common: who reads when, slices, how a link ends, and what becomes of
bytes that cannot be understood.
"""

from __future__ import annotations

from typing import Generic

from dllama_proto.dissect.account import NOTHING, Account
from dllama_proto.dissect.events import ClosedEvent, LinkKind, Stream
from dllama_proto.dissect.halves import C, Half
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.dissect.slices import SliceDecoder
from dllama_proto.dissect.tcp import Direction
from dllama_proto.formatting import counted

__all__ = ["LinkDecoder"]

#: What may wait for the other direction at most: a whole forward of slices is far less.
_MAX_WAITING = 64 * 1024 * 1024


class LinkDecoder(Generic[C]):
    """Base of both kinds of link: ``receivers`` are the connections that read what the directions say."""

    kind = LinkKind.UNKNOWN

    def __init__(
        self,
        session: SessionFacts,
        account: Account,
        directions: tuple[Direction, Direction],
        streams: tuple[Stream, Stream],
        receivers: tuple[C, C],
    ) -> None:
        self._session = session
        self._account = account
        for stream in streams:
            stream.link, stream.session = self.kind, session.number
        #: Who speaks first is first.
        self.halves = (
            Half(directions[0], streams[0], receivers[0], self, account),
            Half(directions[1], streams[1], receivers[1], self, account),
        )
        self.halves[0].other, self.halves[1].other = self.halves[1], self.halves[0]
        self._slices = SliceDecoder(session, account)
        #: Why nothing is read any more; empty while the link is understood.
        self._lost = ""

    # What a half reports ---------------------------------------------------------------------------

    def moved(self, half: Half[C]) -> None:
        """Understand as much as possible, in both directions."""
        # What was understood in one direction may be what the other has waited for.
        while self._advance(half) | self._advance(half.other):
            pass
        for waiting in self.halves:
            if waiting.pending > _MAX_WAITING and not self._lost:
                self._lose(
                    waiting,
                    f"{counted(waiting.pending, 'byte')} cannot be read without what the other side said",
                )

    def closed(self, half: Half[C], time: int, *, reset: bool) -> None:
        """Account for what is left in a direction that has ended."""
        self.moved(half)
        phase = half.link.phase
        self._finish_half(half, "the connection was closed")
        self._account.emit(ClosedEvent(time, time, half.stream, half.offset, 0, NOTHING, phase, reset))

    def finish(self) -> None:
        """Account for everything that is left: the capture has ended."""
        for half in self.halves:
            self.moved(half)
        for half in self.halves:
            phase = half.link.phase
            self._finish_half(half, "the capture ends")
            if not half.direction.ended:
                text = f"the capture ends before this connection does ({phase.name} comes next)"
                self._account.notice(half.time, half.stream, text, half.offset)

    def _finish_half(self, half: Half[C], why: str) -> None:
        reason = self._lost or f"{why} before it is whole ({half.link.phase.name})"
        self._break_off(half, reason)
        self._explain_rest(half, reason)

    # Understanding -----------------------------------------------------------------------------------

    def _advance(self, half: Half[C]) -> bool:
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

    def _step(self, half: Half[C]) -> bool:
        """Understand one thing, or take a part of one; tell whether that was possible."""
        due = half.link.next_slice
        return self._message(half) if due is None else self._slices.step(half, *due)

    def _idle(self, half: Half[C]) -> bool:
        """Do what can be done without bytes; tell whether anything was."""
        return False

    def _message(self, half: Half[C]) -> bool:
        """Do what is to be done where no slice is due; tell whether anything was."""
        raise NotImplementedError

    # What cannot be understood ------------------------------------------------------------------------

    def _break_off(self, half: Half[C], reason: str) -> None:
        """Report what was taken of something that does not become whole."""
        self._slices.break_off(half)

    def _lose(self, half: Half[C], reason: str) -> None:
        """Give the link up: nothing that follows can be understood."""
        for each in self.halves:
            self._break_off(each, reason)
            each.skip()
        self._lost = reason
        text = f"the rest of this connection cannot be understood: {reason}"
        self._account.notice(half.time, half.stream, text, half.offset)

    def _explain_rest(self, half: Half[C], reason: str) -> None:
        """Report all that waits, or passed by, as not understood, or missing."""
        if half.skipped is not None:
            half.skipped.end(reason)
        while half.pending:
            if half.gap:
                half.pass_gap(half.gap, reason)
                continue
            began, offset, n = half.first_time, half.offset, half.ready
            time, raw = half.take(n)
            self._account.unexplained(time, half.stream, offset, n, reason, began=began, raw=raw)
