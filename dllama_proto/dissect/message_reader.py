"""The current message of one direction: its bytes, until it is complete or known not to be a message."""

from __future__ import annotations

from typing import NamedTuple

from dllama_proto.connection import Connection
from dllama_proto.dissect.account import NOTHING, Account
from dllama_proto.dissect.events import FaultEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import NEED_DATA, Event, NoEvent

__all__ = ["MessageBytes", "MessageReader"]


class MessageBytes(NamedTuple):
    """The bytes of a whole message: where in the stream, when the first was captured, and when the last."""

    offset: int
    raw: memoryview
    began: int
    time: int


class MessageReader:
    """Feeds the receiver of one direction, and keeps what it was fed of the current message."""

    def __init__(self, half: Half[Connection], account: Account) -> None:
        self._half = half
        self._account = account
        self._parts: list[memoryview] = []
        #: When the first byte of them was captured, and the last.
        self._began = self._time = 0

    def read(self) -> Event | NoEvent:
        """Return the receiver's next event, fed with what has come; NEED_DATA where more must come.

        No byte is taken that does not belong to the current message. Raises RemoteProtocolError where a
        message breaks the protocol; :meth:`fault` then reports it.
        """
        half = self._half
        while (event := half.link.next_event()) is NEED_DATA:
            n = half.link.n_wanted
            if half.ready < n:
                break
            if not self._parts:
                self._began = self._time = half.first_time
            time, view = half.take(n)
            self._time = max(time, self._time)
            self._parts.append(view)
            half.link.receive_data(view)
        return event

    def begin(self, n: int) -> None:
        """Feed the receiver with ``n`` bytes, which are there, of a message that it does not wait for."""
        half = self._half
        self._began = half.first_time
        self._time, view = half.take(n)
        self._parts.append(view)
        half.link.receive_data(view)

    def whole(self) -> MessageBytes:
        """Return the bytes of the message, which is whole; the next one begins."""
        raw = self._take()
        return MessageBytes(self._half.offset - len(raw), raw, self._began, self._time)

    def fault(self, error: RemoteProtocolError) -> None:
        """Report the byte that breaks the protocol, and what has come of its message."""
        half = self._half
        n = sum(map(len, self._parts))
        at = half.offset - n + min(error.offset or 0, n)
        self._account.emit(
            FaultEvent(
                half.time,
                half.time,
                half.stream,
                at,
                0,
                NOTHING,
                error.path,
                error.expected,
                error.got,
                error.hint,
            )
        )
        self.give_up(f"it breaks the protocol: {error}")

    def give_up(self, reason: str) -> None:
        """Report what has come of a message that does not become whole; the next one begins."""
        if self._parts:
            half, raw = self._half, self._take()
            offset = half.offset - len(raw)
            self._account.unexplained(
                self._time, half.stream, offset, len(raw), reason, began=self._began, raw=raw
            )

    def _take(self) -> memoryview:
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
