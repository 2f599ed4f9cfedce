"""Connections that come while another root is served: who greets as a root is told so, everybody is rejected.

A greeting takes a moment to arrive, so they wait for it, a few at a time. An answer goes only to a complete
greeting: where an ack would come next, and nothing else can be meant.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.limits import Limits
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.eviction import first_to_go
from dllama_worker.node.transport import PendingConnection
from dllama_worker.worker.farewell import refusal
from dllama_worker.worker.handshake import PendingHandshake
from dllama_worker.worker.listener import Listener

__all__ = ["Latecomers"]

#: More do not wait at once: one makes room for a new one.
_MAX_WAITING = 16

_BUSY = "this worker is in a session with a root"


class Latecomers:
    """Those that wait, by descriptor, the oldest first; ``root`` is the address of who is served."""

    def __init__(self, listener: Listener, limits: Limits, root: str) -> None:
        self._listener = listener
        self._limits = limits
        self._answer = refusal(f"it serves another root, at {root}")
        self._waiting: dict[int, tuple[PendingHandshake, str]] = {}

    def __iter__(self) -> Iterator[int]:
        """Return the descriptors of those that wait."""
        return iter(tuple(self._waiting))

    def add(self, pending: PendingConnection, reason: str = _BUSY) -> None:
        """Take a connection over; it is rejected for this reason, at once or later."""
        self.go_on(PendingHandshake(pending, Connection(Role.WORKER, limits=self._limits), 0.0), reason)

    def go_on(self, handshake: PendingHandshake, reason: str) -> None:
        """Take over a connection that has perhaps begun to greet."""
        handshake.deadline = time.monotonic() + timeouts.LATE_GREETING
        fd = handshake.pending.fileno()
        self._waiting[fd] = handshake, reason
        self.read(fd)
        if len(self._waiting) > _MAX_WAITING:
            handshakes = [handshake for handshake, _ in self._waiting.values()]
            gone = first_to_go(handshakes, lambda one: one.pending.host, lambda one: one.has_begun)
            self._reject(gone.pending.fileno())

    def read(self, fd: int) -> None:
        """Read on in one of them, if it still waits."""
        if fd not in self._waiting:
            return
        handshake, _ = self._waiting[fd]
        try:
            if handshake.read() is not None:
                self._reject(fd, bytes(handshake.connection.send(self._answer)))
        except (PeerLost, RemoteProtocolError):
            self._reject(fd)

    def reject_late(self) -> None:
        """Reject those whose time is over."""
        now = time.monotonic()
        for fd in self:
            if self._waiting[fd][0].deadline <= now:
                self._reject(fd)

    def release(self) -> list[PendingHandshake]:
        """Return those that wait, and forget them: the session is over, one of them may be the next root."""
        waiting = [handshake for handshake, _ in self._waiting.values()]
        self._waiting.clear()
        return waiting

    def _reject(self, fd: int, last: bytes = b"") -> None:
        handshake, reason = self._waiting.pop(fd)
        self._listener.reject(handshake.pending, reason, last)
