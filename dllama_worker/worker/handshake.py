"""Callers who have not said who they are: all are listened to at once, the first to greet as a root is let in.

So whoever connects and says nothing, or says it byte by byte, keeps nobody else out.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Closed, NoEvent
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_worker.worker.link_watch import Stopped
from dllama_worker.worker.listener import Listener, PendingConnection

__all__ = ["PendingHandshake", "accept_root"]

#: More than these are not listened to: the one who has been there longest makes room for a new one.
_MAX_CALLERS = 64


@dataclass(slots=True, eq=False)
class PendingHandshake:
    """A caller and how far the conversation has come; ``deadline`` is when the greeting must be complete.

    ``received_bytes`` counts what the caller has said.
    """

    caller: PendingConnection
    connection: Connection
    deadline: float
    received_bytes: int = 0


def accept_root(
    listener: Listener, wake: socket.socket, seconds: float, limits: Limits
) -> tuple[PendingHandshake, Greeting]:
    """Return the first caller that greets, and its greeting; all others are turned away.

    Each has ``seconds`` for it. Raises Stopped when ``wake`` becomes readable.
    """
    handshakes: dict[int, PendingHandshake] = {}
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(listener.sock, select.POLLIN)
    reason = "the worker stops"

    def dismiss(fd: int, why: str) -> None:
        poll.unregister(fd)
        listener.reject(handshakes.pop(fd).caller, why)

    try:
        while True:
            nearest = min((handshake.deadline for handshake in handshakes.values()), default=None)
            patience = None if nearest is None else max(0.0, nearest - time.monotonic()) * 1000 + 1
            for fd, _ in poll.poll(patience):
                if fd == wake.fileno():
                    raise Stopped
                if fd == listener.sock.fileno():
                    if len(handshakes) >= _MAX_CALLERS:
                        dismiss(next(iter(handshakes)), f"{_MAX_CALLERS} others wait who have not greeted")
                    if (caller := listener.accept()) is not None:
                        fd = caller.sock.fileno()
                        handshakes[fd] = PendingHandshake(
                            caller, Connection(Role.WORKER, limits=limits), time.monotonic() + seconds
                        )
                        poll.register(fd, select.POLLIN)
                elif fd in handshakes:
                    try:
                        greeting = _listen(handshakes[fd])
                    except (OSError, RemoteProtocolError) as error:
                        dismiss(fd, f"no root: {error}")
                        continue
                    if greeting is not None:
                        reason = "another root came first"
                        return handshakes.pop(fd), greeting
            now = time.monotonic()
            for fd in [fd for fd, handshake in handshakes.items() if handshake.deadline <= now]:
                dismiss(fd, f"no greeting within {seconds:g} s")
    finally:
        for handshake in handshakes.values():
            listener.reject(handshake.caller, reason)


def _listen(handshake: PendingHandshake) -> Greeting | None:
    """Take what a caller has said; return the greeting once it is whole. Raises OSError, RemoteProtocolError."""
    connection = handshake.connection
    try:
        data = handshake.caller.sock.recv(connection.n_wanted, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    if data:
        handshake.received_bytes += len(data)
        connection.receive_data(data)
    else:
        connection.receive_eof()
    event = connection.next_event()
    if isinstance(event, Closed):
        raise ConnectionError("closed the connection before its Greeting")
    if isinstance(event, NoEvent):
        return None
    if not isinstance(event, Greeting):
        raise RuntimeError(f"expected a greeting from the protocol, got {event!r}")
    return event
