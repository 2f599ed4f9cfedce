"""Names that a root gives become addresses, in bounded time: the system's resolver may take as long as it likes.

It cannot be interrupted, so it works in a thread of its own, whose end is awaited as everything else is: noticing
meanwhile that the root has gone. Addresses written as such need neither thread nor resolver.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dllama_proto.messages import Peer
from dllama_worker.errors import MachineError
from dllama_worker.worker.link_watch import LinkWatch

__all__ = ["Address", "Lookup", "Resolver"]

#: Threads that may still be busy with the names of sessions that are over.
_MAX_ABANDONED = 8


@dataclass(frozen=True, slots=True)
class Address:
    """How to make a socket for an address, and the address itself as the socket takes it."""

    family: int
    kind: int
    protocol: int
    sockaddr: tuple[str | int | bytes, ...]

    @property
    def host(self) -> str:
        """The address without its port, as people write it."""
        return str(self.sockaddr[0])


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a name stands for: addresses, or why there are none."""

    addresses: tuple[Address, ...] = ()
    error: OSError | None = None


class Resolver:
    """Looks up hosts, those of one session at a time, by asking the system (or who does as it does)."""

    def __init__(self, getaddrinfo: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._threads: list[threading.Thread] = []

    def look_up(self, peers: Sequence[Peer], watch: LinkWatch, deadline: float) -> list[Lookup]:
        """Look up all of them; what is not known by ``deadline`` (of the monotonic clock) has timed out.

        Raises PeerLost where the root hangs up meanwhile, Stopped, MachineError where too many earlier names
        have not been answered yet.
        """
        found = [self._look_up(peer, socket.AI_NUMERICHOST) for peer in peers]
        names = [index for index, lookup in enumerate(found) if lookup.error is not None]
        if not names:
            return found
        self._make_room()
        ours, theirs = socket.socketpair()
        given_up = threading.Event()
        known: dict[int, Lookup] = {}

        def work() -> None:
            with theirs:  # whose closing tells that all is done
                for index in names:
                    if given_up.is_set():
                        break
                    known[index] = self._look_up(peers[index], 0)

        with ours:
            try:
                thread = threading.Thread(target=work, name="resolver", daemon=True)
                thread.start()
                self._threads.append(thread)
                watch.readable(ours, deadline - time.monotonic())
            finally:
                given_up.set()
        for index in names:
            found[index] = known.get(index, Lookup(error=TimeoutError("the name was not resolved in time")))
        return found

    def _make_room(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= _MAX_ABANDONED:
            raise MachineError(
                "the system's resolver has not answered for the hosts of earlier sessions: expected an answer in "
                "time; check its name servers, or name workers by address at the root"
            )

    def _look_up(self, peer: Peer, flags: int) -> Lookup:
        # As bytes: text would go through a codec of Python's, which raises errors of its own.
        host = peer.host.encode("utf-8", "surrogateescape")
        try:
            found = self._getaddrinfo(host, peer.port, type=socket.SOCK_STREAM, flags=flags)
        except OSError as error:
            return Lookup(error=error)
        return Lookup(
            tuple(
                Address(family, kind, protocol, sockaddr) for family, kind, protocol, _, sockaddr in found
            )
        )
