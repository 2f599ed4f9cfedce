"""Waiting that notices what happens elsewhere meanwhile: the worker is to stop, or another node hangs up.

A worker mostly waits for one socket. That another node of the session has gone must not be found out only when
it is needed next, which on an idle cluster is never.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable

from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link

__all__ = ["HANG_UP", "LinkWatch", "Stopped"]

#: The other end has closed, even where bytes of it are still unread. Linux only: elsewhere a peer that closes is
#: noticed by the next forward.
HANG_UP = getattr(select, "POLLRDHUP", 0)

#: At the regular end of a session workers close in any order: the root's word for it may come a little later.
_GRACE = 0.5


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


class LinkWatch:
    """Waits for sockets, one thread's at a time. ``wake`` becoming readable means to stop."""

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake
        #: Asked about a link that hangs up: whether the session can do without it for now.
        self.can_lose: Callable[[Link], bool] = lambda link: False
        self._links: dict[int, Link] = {}
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)

    def add(self, link: Link) -> None:
        """From now on its hanging up ends every wait for something else."""
        self._links[link.sock.fileno()] = link
        self._poll.register(link.sock, HANG_UP)

    def remove(self, link: Link) -> None:
        """Forget a link, if it is known: its socket is about to be closed, or to become another's."""
        fd = link.sock.fileno()
        if self._links.get(fd) is link:
            del self._links[fd]
            self._poll.unregister(fd)

    def clear(self) -> None:
        """Forget all links: the session is over."""
        self.can_lose = lambda link: False
        for fd in self._links:
            self._poll.unregister(fd)
        self._links.clear()

    def readable(self, sock: socket.socket, seconds: float) -> bool:
        """Wait until something can be received or accepted (or the end be seen); tell whether it came in time.

        Raises Stopped, and PeerLost where another node hangs up and ``sock`` stays silent.
        """
        return bool(self._wait([sock], select.POLLIN, seconds))

    def any_readable(self, socks: Iterable[socket.socket], seconds: float) -> list[socket.socket]:
        """Wait as readable does, for any of several; return those with something, none if it takes too long."""
        return self._wait(list(socks), select.POLLIN, seconds)

    def writable(self, sock: socket.socket, seconds: float) -> bool:
        """Wait until a connection is made or refused; tell whether it was in time. Raises as readable."""
        return bool(self._wait([sock], select.POLLOUT, seconds))

    def _wait(self, socks: list[socket.socket], events: int, seconds: float) -> list[socket.socket]:
        deadline = time.monotonic() + seconds
        targets = {sock.fileno(): sock for sock in socks}
        for fd in targets:
            self._poll.register(fd, events | HANG_UP)
        try:
            while True:
                ready = dict(self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
                if self._wake.fileno() in ready:
                    raise Stopped
                found = [sock for fd, sock in targets.items() if fd in ready]
                if found or not ready:
                    return found
                gone = [self._links[fd] for fd in ready]
                if all(self.can_lose(link) for link in gone):
                    continue
                only = select.poll()
                for fd in targets:
                    only.register(fd, events)
                if found := [targets[fd] for fd, _ in only.poll(_GRACE * 1000)]:
                    return found
                raise PeerLost(gone[0].name, "closed the connection")
        finally:
            for fd in targets:
                if fd in self._links:
                    self._poll.register(fd, HANG_UP)
                else:
                    self._poll.unregister(fd)
