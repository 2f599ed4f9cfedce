"""Waiting that notices what happens elsewhere meanwhile: the worker is to stop, or another node hangs up.

A worker mostly waits for one connection. That another node of the session has gone must not be found out only
when it is needed next, which on an idle cluster is never.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from dllama_proto.exit_codes import ExitCode
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link, PendingConnection

__all__ = ["HANG_UP", "LinkWatch", "Pollable", "Stopped"]

#: The other end has closed, even where bytes of it are still unread. Linux only: elsewhere a peer that closes is
#: noticed by the next forward.
HANG_UP = getattr(select, "POLLRDHUP", 0)


class Pollable(Protocol):
    """What has a descriptor: a link, a pending connection, a listener, a socket."""

    def fileno(self) -> int:
        """Return the descriptor."""


_P = TypeVar("_P", bound=Pollable)


class Stopped(Exception):
    """The worker was asked to stop while it waited."""

    exit_code = ExitCode.DONE


class LinkWatch:
    """Waits for what can be polled, in one thread at a time. ``wakeup`` becoming readable means to stop."""

    def __init__(self, wakeup: Pollable) -> None:
        self._wakeup = wakeup
        #: Asked about a link that hangs up: whether the session can do without it for now.
        self.can_lose: Callable[[Link], bool] = lambda link: False
        self._links: dict[int, Link] = {}
        self._poll = select.poll()
        self._poll.register(wakeup.fileno(), select.POLLIN)

    def add(self, link: Link) -> None:
        """From now on its hanging up ends every wait for something else."""
        self._links[link.fileno()] = link
        self._poll.register(link.fileno(), HANG_UP)

    def remove(self, link: Link) -> None:
        """Forget a link, if it is known: its socket is about to be closed, or to become another link's."""
        fd = link.fileno()
        if self._links.get(fd) is link:
            del self._links[fd]
            self._poll.unregister(fd)

    def clear(self) -> None:
        """Forget all links: the session is over."""
        self.can_lose = lambda link: False
        for fd in self._links:
            self._poll.unregister(fd)
        self._links.clear()

    def look(self, *, at_links: bool = True) -> None:
        """Return at once. Raises Stopped and, looking ``at_links``, PeerLost where another node has hung up."""
        ready = {fd for fd, _ in self._poll.poll(0)}
        if self._wakeup.fileno() in ready:
            raise Stopped
        for link in [self._links[fd] for fd in ready if at_links]:
            if not self.can_lose(link):
                raise PeerLost(link.name, "closed the connection", hung_up=True)

    def readable(self, target: Pollable, seconds: float) -> bool:
        """Wait until something can be received or accepted (or the end be seen); tell whether it came in time.

        Raises Stopped, and PeerLost where another node hangs up and ``target`` stays silent.
        """
        return bool(self._wait([target], select.POLLIN, seconds))

    def any_readable(self, targets: Iterable[_P], seconds: float) -> list[_P]:
        """Wait as readable does, for any of several; return those with something, none if it takes too long."""
        return self._wait(list(targets), select.POLLIN, seconds)

    def writable(self, target: Pollable, seconds: float) -> bool:
        """Wait until a connection is made or refused; tell whether it was in time. Raises as readable."""
        return bool(self._wait([target], select.POLLOUT, seconds))

    def _wait(self, targets: list[_P], events: int, seconds: float) -> list[_P]:
        if events == select.POLLIN and (found := [target for target in targets if _holds_bytes(target)]):
            return found
        deadline = time.monotonic() + seconds
        by_fd = {target.fileno(): target for target in targets}
        for fd in by_fd:
            self._poll.register(fd, events | HANG_UP)
        try:
            while True:
                ready = dict(self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
                if self._wakeup.fileno() in ready:
                    raise Stopped
                found = [target for fd, target in by_fd.items() if fd in ready]
                if found or not ready:
                    return found
                lost = [self._links[fd] for fd in ready]
                if all(self.can_lose(link) for link in lost):
                    continue
                if found := _ready_within(timeouts.HANG_UP, by_fd, events):
                    return found
                raise PeerLost(lost[0].name, "closed the connection", hung_up=True)
        finally:
            for fd in by_fd:
                if fd in self._links:
                    self._poll.register(fd, HANG_UP)
                else:
                    self._poll.unregister(fd)


def _holds_bytes(target: Pollable) -> bool:
    return isinstance(target, Link | PendingConnection) and target.holds_bytes


def _ready_within(seconds: float, targets: dict[int, _P], events: int) -> list[_P]:
    """Wait for the targets alone, by descriptor."""
    poll = select.poll()
    for fd in targets:
        poll.register(fd, events)
    return [targets[fd] for fd, _ in poll.poll(seconds * 1000)]
