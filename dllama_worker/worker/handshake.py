"""Handshakes of pending connections: all run at the same time, and the first complete greeting wins.

A connection that sends nothing, or sends its greeting byte by byte, does not delay the others.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Closed, NoEvent
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_worker.errors import PeerLost
from dllama_worker.node.eviction import first_to_go
from dllama_worker.node.transport import PendingConnection
from dllama_worker.worker.link_watch import Pollable, Stopped
from dllama_worker.worker.listener import Listener

__all__ = ["PendingHandshake", "accept_root"]

#: The maximum of handshakes at the same time. When a new connection comes beyond it, one is rejected.
_MAX_HANDSHAKES = 64

#: So many are accepted between two looks at those that wait already.
_MAX_ACCEPTS = 64

#: How TLS begins (RFC 8446, section 5.1); no greeting does.
_TLS = b"\x16\x03"


@dataclass(slots=True, eq=False)
class PendingHandshake:
    """A pending connection and its protocol state; the greeting must be complete by ``deadline``."""

    pending: PendingConnection
    connection: Connection
    deadline: float
    has_begun: bool = False

    def read(self) -> Greeting | None:
        """Take what has come, all of it; return the greeting once it is complete.

        Raises PeerLost where the other end closed the connection, RemoteProtocolError where it sent
        something else.
        """
        while (data := self.pending.receive_now(self.connection.n_wanted)) is not None:
            if data.startswith(_TLS) and not self.has_begun:
                raise PeerLost(
                    self.pending.address,
                    "it speaks TLS and this worker does not: start this one with --tls-cert, --tls-key and "
                    "--tls-ca, or the other without",
                )
            self.has_begun = True
            if data:
                self.connection.receive_data(data)
            else:
                self.connection.receive_eof()
            event = self.connection.next_event()
            if isinstance(event, Closed):
                raise PeerLost(self.pending.address, "closed the connection before its Greeting")
            if isinstance(event, Greeting):
                return event
            if not isinstance(event, NoEvent):
                raise RuntimeError(f"expected a greeting from the protocol, got {type(event).__name__}")
        return None


def accept_root(
    listener: Listener,
    wakeup: Pollable,
    seconds: float,
    limits: Limits,
    keep: Callable[[PendingHandshake, str], None] | None = None,
    begun: Iterable[PendingHandshake] = (),
) -> tuple[PendingHandshake, Greeting]:
    """Return the first connection with a complete greeting, and the greeting; reject all others.

    Each connection has ``seconds`` for its greeting; those that have ``begun`` go on. ``keep`` takes those whose
    greeting may still come, and the reason. Raises Stopped when ``wakeup`` becomes readable.
    """
    handshakes = _Handshakes(listener, wakeup, seconds, limits)
    for handshake in begun:
        handshakes.go_on(handshake)
    try:
        first = handshakes.wait_for_greeting()
        handshakes.end("another root came first", keep)
        return first
    finally:
        handshakes.end("the worker stops")


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
                readable = self._accept() if fd == self._listener.fileno() else (fd,)
                for fd in readable:
                    if fd in self._handshakes and (greeting := self._read(fd)) is not None:
                        return self._handshakes.pop(fd), greeting
            self._reject_late()

    def end(self, reason: str, keep: Callable[[PendingHandshake, str], None] | None = None) -> None:
        """End those that still run: ``keep`` takes them, or they are rejected."""
        for fd in tuple(self._handshakes):
            if keep is None:
                self._reject(fd, reason)
            else:
                keep(self._handshakes.pop(fd), reason)

    def _ready(self) -> list[int]:
        """Wait until something can be read or accepted, or until the next deadline."""
        deadline = min((handshake.deadline for handshake in self._handshakes.values()), default=None)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
        return [fd for fd, _ in self._poll.poll(timeout)]

    def _accept(self) -> list[int]:
        """Accept some connections; return the descriptors of those where no poller sees what has come."""
        unseen = []
        for _ in range(_MAX_ACCEPTS):
            pending = self._listener.accept()
            if pending is None:
                break
            self.go_on(PendingHandshake(pending, Connection(Role.WORKER, limits=self._limits), 0.0))
            if pending.holds_bytes:
                unseen.append(pending.fileno())
            if len(self._handshakes) > _MAX_HANDSHAKES:
                gone = first_to_go(
                    self._handshakes.values(), lambda one: one.pending.host, lambda one: one.has_begun
                )
                self._reject(gone.pending.fileno(), f"{_MAX_HANDSHAKES} others wait who have not greeted")
        return unseen

    def go_on(self, handshake: PendingHandshake) -> None:
        """Run one that has perhaps begun; its time begins anew."""
        handshake.deadline = time.monotonic() + self._seconds
        fd = handshake.pending.fileno()
        self._handshakes[fd] = handshake
        self._poll.register(fd, select.POLLIN)

    def _read(self, fd: int) -> Greeting | None:
        """Continue one handshake; reject the connection if its bytes cannot become a greeting."""
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
