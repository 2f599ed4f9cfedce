"""What became of each byte: events of what cannot be understood or was not captured, and the sums of streams.

Whoever makes sense of bytes tells it here, so that no byte is counted without an event, nor twice.
"""

from __future__ import annotations

from collections.abc import Callable

from dllama_proto.dissect.events import MissingEvent, NoticeEvent, Stream, UnexplainedEvent, WireEvent

__all__ = ["Account", "NOTHING"]

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
        raw: memoryview = NOTHING,
        began: int | None = None,
    ) -> None:
        """Report ``n`` bytes that cannot be given a meaning; ``raw`` are they, where they were kept."""
        stream.unexplained += n
        self.emit(UnexplainedEvent(time, time if began is None else began, stream, offset, n, raw, reason))

    def notice(self, time: int, stream: Stream | None, text: str, offset: int = 0) -> None:
        """Report something that a reader should know."""
        self.emit(NoticeEvent(time, time, stream, offset, 0, NOTHING, text))
