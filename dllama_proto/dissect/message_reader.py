"""One direction's message at hand: its bytes, from the first until it is whole, or known to become none."""

from __future__ import annotations

from typing import NamedTuple

from dllama_proto.dissect.account import NOTHING, Account
from dllama_proto.dissect.events import FaultEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.errors import RemoteProtocolError

__all__ = ["MessageBytes", "MessageReader"]


class MessageBytes(NamedTuple):
    """The bytes of a whole message: where in the stream, when the first was captured, and when the last."""

    offset: int
    raw: memoryview
    began: int
    time: int


class MessageReader:
    """Feeds the receiver of one direction, and keeps what it was fed of the message at hand."""

    def __init__(self, half: Half, account: Account) -> None:
        self._half = half
        self._account = account
        self._parts: list[memoryview] = []
        self._began = self._time = 0

    def feed(self) -> bool:
        """Give the receiver the bytes that it waits for; tell whether they were there."""
        half = self._half
        n = half.link.n_wanted
        if half.ready < n:
            return False
        if not self._parts:
            self._began = half.first_time
        self._time, view = half.take(n)
        self._parts.append(view)
        half.link.receive_data(view)
        return True

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
        """Report what has come of a message that does not become whole."""
        if self._parts:
            half, raw = self._half, self._take()
            offset = half.offset - len(raw)
            self._account.unexplained(
                half.time, half.stream, offset, len(raw), reason, raw=raw, began=self._began
            )

    def _take(self) -> memoryview:
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
