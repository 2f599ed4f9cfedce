"""Waiting that notices what happens elsewhere meanwhile: the worker is to stop, or another node hangs up.

A worker mostly waits for one socket. That another node of the session has gone must not be found out only when
it is needed next, which on an idle cluster is never.
"""

from __future__ import annotations

import select
import socket

from dllama_worker.errors import PeerLost
from dllama_worker.transport import Link

__all__ = ["HANG_UP", "Stopped", "Watch"]

#: The other end has closed, even where bytes of it are still unread. Linux only: elsewhere a peer that closes is
#: noticed by the next forward.
HANG_UP = getattr(select, "POLLRDHUP", 0)

#: At the regular end of a session workers close in any order: the root's word for it may come a little later.
_GRACE = 0.5


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


class Watch:
    """Waits for sockets, one thread's at a time. ``wake`` becoming readable means to stop."""

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake
        self._links: dict[int, Link] = {}
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)

    def add(self, link: Link) -> None:
        """From now on its hanging up ends every wait for something else."""
        self._links[link.sock.fileno()] = link
        self._poll.register(link.sock, HANG_UP)

    def clear(self) -> None:
        """Forget all links: the session is over."""
        for fd in self._links:
            self._poll.unregister(fd)
        self._links.clear()

    def readable(self, sock: socket.socket, seconds: float) -> bool:
        """Wait until something can be received or accepted (or the end be seen); tell whether it came in time.

        Raises Stopped, and PeerLost where another node hangs up and ``sock`` stays silent.
        """
        return self._wait(sock, select.POLLIN, seconds)

    def writable(self, sock: socket.socket, seconds: float) -> bool:
        """Wait until a connection is made or refused; tell whether it was in time. Raises as readable."""
        return self._wait(sock, select.POLLOUT, seconds)

    def _wait(self, sock: socket.socket, events: int, seconds: float) -> bool:
        target = sock.fileno()
        self._poll.register(sock, events | HANG_UP)
        try:
            ready = dict(self._poll.poll(max(0.0, seconds) * 1000))
        finally:
            if target in self._links:
                self._poll.register(sock, HANG_UP)
            else:
                self._poll.unregister(sock)
        if self._wake.fileno() in ready:
            raise Stopped
        if target in ready or not ready:
            return bool(ready)
        only = select.poll()
        only.register(sock, events)
        if only.poll(_GRACE * 1000):
            return True
        raise PeerLost(self._links[next(iter(ready))].name, "closed the connection")
