"""One direction of a link while it is decoded: captured bytes that wait, and the gaps between them."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, Protocol, TypeVar

from dllama_proto._base_connection import BaseConnection
from dllama_proto.dissect.account import Account, UnexplainedRun
from dllama_proto.dissect.events import Stream
from dllama_proto.dissect.tcp import Direction

__all__ = ["C", "Decoder", "Half"]

#: Which kind of connection the receivers of a link are.
C = TypeVar("C", bound=BaseConnection)


class Decoder(Protocol):
    """Who makes sense of a link."""

    def moved(self, half: Half[Any]) -> None:
        """Look at what has come."""

    def closed(self, half: Half[Any], time: int, *, reset: bool) -> None:
        """Learn that nothing more comes in this direction."""


class Half(Generic[C]):
    """The sink of one direction: ``link`` is the connection in the place of its receiver.

    The bulk of a weight is only counted: while ``bulk`` bytes of one are still to come, data passes by. So it
    does once :meth:`skip` was called, when nothing can be understood any more.
    """

    __slots__ = (
        "_account",
        "_chunks",
        "_decoder",
        "bulk",
        "direction",
        "link",
        "offset",
        "other",
        "pending",
        "ready",
        "skipped",
        "stream",
        "time",
    )

    def __init__(
        self, direction: Direction, stream: Stream, link: C, decoder: Decoder, account: Account
    ) -> None:
        self.direction = direction
        self.stream = stream
        self.link = link
        #: The half in the other direction; set by the decoder.
        self.other: Half[C] = self
        #: Bytes of the stream before what waits.
        self.offset = 0
        #: Bytes that wait, gaps included; those before the first gap.
        self.pending = self.ready = 0
        self.bulk = 0
        #: What passed by since nothing can be understood; None while it can.
        self.skipped: UnexplainedRun | None = None
        #: When the last byte was captured.
        self.time = 0
        #: When captured, and the bytes; or how many are missing.
        self._chunks: deque[tuple[int, memoryview | int]] = deque()
        self._decoder = decoder
        self._account = account

    # What a sink is told ---------------------------------------------------------------------------

    def data(self, time: int, view: memoryview) -> None:
        """Take the next bytes."""
        if time > self.time:
            self.time = time
        n = len(view)
        if n < self.bulk and not self.pending:
            self.bulk -= n
            self.offset += n
            return
        if self.skipped is not None and not self.pending:
            self.skipped.add(time, self.offset, n)
            self.offset += n
            return
        if self.ready == self.pending:
            self.ready += n
        self.pending += n
        self._chunks.append((time, view))
        self._decoder.moved(self)

    def missing(self, time: int, n: int) -> None:
        """Learn that bytes were not captured."""
        self.time = max(time, self.time)
        self.pending += n
        self._chunks.append((time, n))
        self._decoder.moved(self)

    def end(self, time: int, *, reset: bool) -> None:
        """Learn that nothing follows."""
        self._decoder.closed(self, time, reset=reset)

    def skip(self) -> None:
        """Only count what comes from now on."""
        self.skipped = UnexplainedRun(self._account, self.stream)

    # What a decoder takes ---------------------------------------------------------------------------

    @property
    def first_time(self) -> int:
        """When the next byte was captured, or the last one that was."""
        return self._chunks[0][0] if self._chunks else self.time

    @property
    def gap(self) -> int:
        """Size of the gap that comes next, 0 where bytes come next, or nothing."""
        if self.ready or not self._chunks:
            return 0
        n = self._chunks[0][1]
        return n if isinstance(n, int) else 0

    def begins_with(self, data: bytes) -> bool:
        """Tell whether these bytes come next."""
        if self.ready < len(data):
            return False
        for _, view in self._chunks:
            if isinstance(view, int) or len(view) >= len(data):
                return not isinstance(view, int) and view[: len(data)] == data
            if view != data[: len(view)]:
                return False
            data = data[len(view) :]
        return not data

    def take(self, n: int) -> tuple[int, memoryview]:
        """Return the next ``n`` bytes, at most ``ready``, and when the last of them was captured."""
        time, parts = self.first_time, []
        while n:
            captured, view = self._chunks[0]
            time = max(time, captured)
            if isinstance(view, int):
                raise RuntimeError("a gap within bytes that are ready: a bug in the counting of a half")
            if len(view) > n:
                self._chunks[0] = (captured, view[n:])
                view = view[:n]
            else:
                self._chunks.popleft()
            parts.append(view)
            n -= len(view)
            self.offset += len(view)
            self.pending -= len(view)
            self.ready -= len(view)
        return time, parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def take_chunk(self) -> tuple[int, memoryview]:
        """Return what was captured at once, and when; ``ready`` must not be 0."""
        view = self._chunks[0][1]
        return self.take(self.ready if isinstance(view, int) else len(view))

    def drop(self, n: int) -> int:
        """Go over the next ``n`` bytes, at most ``ready``; return when the last of them was captured."""
        time = self.first_time
        while n:
            view = self._chunks[0][1]
            k = min(n, n if isinstance(view, int) else len(view))
            time = max(time, self.take(k)[0])
            n -= k
        return time

    def put_back(self, time: int, view: memoryview) -> None:
        """Take back bytes that were taken last, to be read once more."""
        n = len(view)
        self._chunks.appendleft((time, view))
        self.offset -= n
        self.pending += n
        self.ready += n

    def pass_gap(self, n: int, within: str) -> None:
        """Report that the next ``n`` bytes, at most ``gap``, were not captured, and go over them."""
        time, size = self._chunks[0]
        if not isinstance(size, int) or size < n:
            raise RuntimeError(f"{n} missing bytes where there are not as many: a bug of the decoder")
        self._account.missing(self.time, self.stream, self.offset, n, within)
        self.offset += n
        self.pending -= n
        if size > n:
            self._chunks[0] = (time, size - n)
            return
        self._chunks.popleft()
        for _, view in self._chunks:
            if isinstance(view, int):
                break
            self.ready += len(view)

    def count_payload(self, n: int) -> None:
        """Tell both ends that the next ``n`` bytes of a payload have passed, captured or not."""
        self.link.payload_received(n)
        self.other.link.payload_sent(n)
