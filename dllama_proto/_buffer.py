"""Bytes that have arrived and wait to be understood; nothing here knows a message."""

from __future__ import annotations

from collections import deque

__all__ = ["ReceiveBuffer"]


class ReceiveBuffer:
    """Keeps received bytes as they came, and gives exactly as many as asked.

    What lies within one received chunk is handed out without a copy; only what spans several is joined,
    once.
    """

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._size = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes. Only ``bytes`` are kept as they are; what can change is copied."""
        if len(data):
            # bytes(...) of bytes is the same object.
            self._chunks.append(memoryview(bytes(data)))
            self._size += len(self._chunks[-1])

    def begins_with(self, data: bytes) -> bool:
        """Tell whether these bytes come next, all of them having arrived."""
        first = self.take(len(data))
        if first is None:
            return False
        self._chunks.appendleft(first)
        self._size += len(first)
        return first == data

    def take(self, n: int) -> memoryview | None:
        """Return the next ``n`` bytes, or None where fewer have arrived."""
        if n > self._size:
            return None
        if not n:
            return memoryview(b"")
        if len(self._chunks[0]) >= n:
            return self.take_some(n)
        parts = []
        missing = n
        while missing:
            parts.append(self.take_some(missing))
            missing -= len(parts[-1])
        return memoryview(b"".join(parts))

    def take_some(self, limit: int) -> memoryview:
        """Return up to ``limit`` bytes without a copy; none where nothing has arrived."""
        if not self._chunks or not limit:
            return memoryview(b"")
        first = self._chunks[0]
        if len(first) <= limit:
            self._chunks.popleft()
            self._size -= len(first)
            return first
        self._chunks[0] = first[limit:]
        self._size -= limit
        return first[:limit]

    def take_into(self, view: memoryview) -> int:
        """Copy as many bytes as there are, and as fit, to the start of ``view``; return how many."""
        done = 0
        while done < len(view) and self._chunks:
            part = self.take_some(len(view) - done)
            view[done : done + len(part)] = part
            done += len(part)
        return done
