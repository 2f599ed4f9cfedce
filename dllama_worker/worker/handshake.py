"""Connections whose other end has not greeted yet: all are read at once, the first to greet as a root is taken.

So whoever connects and says nothing, or says it byte by byte, keeps nobody else out.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Closed, NoEvent
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import PendingConnection
from dllama_worker.worker.link_watch import Pollable, Stopped
from dllama_worker.worker.listener import Listener

__all__ = ["PendingHandshake", "accept_root"]

#: More handshakes than these do not run at once: the oldest makes room for a new one.
_MAX_HANDSHAKES = 64


@dataclass(slots=True, eq=False)
class PendingHandshake:
    """A connection and how far its conversation has come; ``deadline`` is when the greeting must be complete."""

    pending: PendingConnection
    connection: Connection
    deadline: float

    def read(self) -> Greeting | None:
        """Take what has come; return the greeting once it is complete.

        Raises PeerLost where the other end has gone, RemoteProtocolError where it said something else.
        """
        data = self.pending.receive_now(self.connection.n_wanted)
        if data is None:
            return None
        if data:
            self.connection.receive_data(data)
        else:
            self.connection.receive_eof()
        event = self.connection.next_event()
        if isinstance(event, Closed):
            raise PeerLost(self.pending.address, "closed the connection before its Greeting")
        if isinstance(event, NoEvent):
            return None
        if not isinstance(event, Greeting):
            raise RuntimeError(f"expected a greeting from the protocol, got {event!r}")
        return event


def accept_root(
    listener: Listener, wakeup: Pollable, seconds: float, limits: Limits
) -> tuple[PendingHandshake, Greeting]:
    """Return the first connection that greets, and its greeting; all others are rejected.

    Each has ``seconds`` for it. Raises Stopped when ``wakeup`` becomes readable.
    """
    handshakes = _Handshakes(listener, wakeup, seconds, limits)
    reason = "the worker stops"
    try:
        first = handshakes.wait_for_greeting()
        reason = "another root came first"
        return first
    finally:
        handshakes.reject_all(reason)


class _Handshakes:
    """All handshakes of a listener that run at the same time, by descriptor, the oldest first."""

    def __init__(self, listener: Listener, wakeup: Pollable, seconds: float, limits: Limits) -> None:
        self._listener = listener
        self._wakeup = wakeup
        self._seconds = seconds
        self._limits = limits
        self._handshakes: dict[int, PendingHandshake] = {}
        self._poll = select.poll()
        self._poll.register(wakeup.fileno(), select.POLLIN)
        self._poll.register(listener.fileno(), select.POLLIN)

    def wait_for_greeting(self) -> tuple[PendingHandshake, Greeting]:
        """Run them until one is complete. Raises Stopped."""
        while True:
            for fd in self._ready():
                if fd == self._wakeup.fileno():
                    raise Stopped
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._handshakes and (greeting := self._read(fd)) is not None:
                    return self._handshakes.pop(fd), greeting
            self._reject_late()

    def reject_all(self, reason: str) -> None:
        """End those that still run."""
        for fd in tuple(self._handshakes):
            self._reject(fd, reason)

    def _ready(self) -> list[int]:
        """Wait until something can be read or accepted, or until the next deadline."""
        deadline = min((handshake.deadline for handshake in self._handshakes.values()), default=None)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
        return [fd for fd, _ in self._poll.poll(timeout)]

    def _accept(self) -> None:
        if len(self._handshakes) >= _MAX_HANDSHAKES:
            self._reject(
                next(iter(self._handshakes)), f"{_MAX_HANDSHAKES} others wait who have not greeted"
            )
        pending = self._listener.accept()
        if pending is None:
            return
        connection = Connection(Role.WORKER, limits=self._limits)
        handshake = PendingHandshake(pending, connection, time.monotonic() + self._seconds)
        self._handshakes[pending.fileno()] = handshake
        self._poll.register(pending.fileno(), select.POLLIN)

    def _read(self, fd: int) -> Greeting | None:
        """Read on in one handshake; what cannot become a greeting any more is rejected."""
        try:
            return self._handshakes[fd].read()
        except PeerLost as error:
            self._reject(fd, f"no root: {error.reason}")
        except RemoteProtocolError as error:
            self._reject(fd, f"no root: {error}")
        return None

    def _reject_late(self) -> None:
        now = time.monotonic()
        for fd in [fd for fd, handshake in self._handshakes.items() if handshake.deadline <= now]:
            self._reject(fd, f"no greeting within {self._seconds:g} s")

    def _reject(self, fd: int, reason: str) -> None:
        self._poll.unregister(fd)
        self._listener.reject(self._handshakes.pop(fd).pending, reason)
