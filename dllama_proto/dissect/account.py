"""What became of each byte: events of what cannot be understood or was not captured, and the sums of streams.

Whoever makes sense of bytes tells it here, so that no byte is counted without an event, nor twice.
"""

from __future__ import annotations

from collections.abc import Callable

from dllama_proto.dissect.events import MissingEvent, NoticeEvent, Stream, UnexplainedEvent, WireEvent

__all__ = ["Account", "NOTHING", "UnexplainedRun"]

#: The bytes of an event that has none, or whose bytes are not kept.
NOTHING = memoryview(b"")


class Account:
    """Keeps the account of a capture's bytes; ``emit`` is called with every event, in their order."""

    def __init__(self, emit: Callable[[WireEvent], None]) -> None:
        self.emit = emit

    def explained(self, event: WireEvent, n: int) -> None:
        """Report what ``n`` captured bytes of the event's stream say."""
        if event.stream is not None:
            event.stream.explained += n
        self.emit(event)

    def missing(self, time: int, stream: Stream, offset: int, n: int, within: str) -> None:
        """Report ``n`` bytes that were not captured; ``within`` says what they were part of."""
        stream.missing += n
        self.emit(MissingEvent(time, time, stream, offset, n, NOTHING, within))

    def unexplained(
        self,
        time: int,
        stream: Stream,
        offset: int,
        n: int,
        reason: str,
        *,
        began: int,
        raw: memoryview = NOTHING,
    ) -> None:
        """Report ``n`` bytes that cannot be given a meaning; ``raw`` are they, where they were kept."""
        stream.unexplained += n
        self.emit(UnexplainedEvent(time, began, stream, offset, n, raw, reason))

    def notice(self, time: int, stream: Stream | None, text: str, offset: int = 0) -> None:
        """Report something that a reader should know."""
        self.emit(NoticeEvent(time, time, stream, offset, 0, NOTHING, text))


class UnexplainedRun:
    """Bytes of a stream that follow each other and mean nothing: they are counted, and become one event."""

    __slots__ = ("_account", "_began", "_n", "_offset", "_stream", "_time")

    def __init__(self, account: Account, stream: Stream) -> None:
        self._account = account
        self._stream = stream
        self._offset = self._n = 0
        #: When the first of them was captured, and the last.
        self._began = self._time = 0

    def add(self, time: int, offset: int, n: int) -> None:
        """Count the ``n`` bytes from ``offset`` on, which follow those before."""
        if not self._n:
            self._began = self._time = time
            self._offset = offset
        self._n += n
        self._time = max(time, self._time)

    def end(self, reason: str) -> None:
        """Report what was counted, if anything was; the next bytes begin a new run."""
        if self._n:
            n, self._n = self._n, 0
            self._account.unexplained(self._time, self._stream, self._offset, n, reason, began=self._began)
