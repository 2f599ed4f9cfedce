"""The places of the workers that dial this one: who has them, and who else may be meant.

Nothing on the wire says who has dialled. Who comes first from a peer's address gets its place; a stranger there
may come before the peer. But peers are silent until the first forward, and then all of them speak. So whoever
comes from a peer's address later is kept waiting, and if somebody waits, the first forward tells who is who.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener, PendingConnection

__all__ = ["AcceptedPeer", "PeerCandidates", "peek"]

#: More than these do not wait; peers are few, and every one costs a descriptor.
_MAX_WAITING = 16

#: A root tells all workers of a forward within this time, and the first slice may come before its word for it.
_AHEAD = 1.0

_TOO_EARLY = "a peer says nothing before the first sync; this one did, or hung up"

#: Seconds that are as good as for ever, and that poll still takes.
_MAX_SECONDS = 1e6


@dataclass(slots=True, eq=False)
class AcceptedPeer:
    """The place of ``node``: ``addresses`` are its host's, ``is_listed`` whether who first took it had one."""

    node: int
    link: Link
    caller: PendingConnection | None
    addresses: frozenset[str]
    is_listed: bool


class PeerCandidates:
    """All places of one session, filled when the mesh is joined, in the order of the root's list."""

    def __init__(self, seats: Iterable[AcceptedPeer], listener: Listener, watch: LinkWatch) -> None:
        self._seats = list(seats)
        self._listener = listener
        self._watch = watch
        self._lock = threading.Lock()
        self._waiting: list[PendingConnection] = []
        self._spoke: dict[PendingConnection, float] = {}
        self._unseated: list[tuple[PendingConnection, str]] = []
        self._is_open = True

    # Called by whoever stands at the listener ----------------------------------------------------------------

    def offer(self, caller: PendingConnection) -> bool:
        """Let a caller wait who may be one of the peers; tell whether it does."""
        with self._lock:
            fits = self._is_open and any(self._may_sit(caller, seat) for seat in self._seats)
            if not fits or len(self._waiting) >= _MAX_WAITING:
                return False
            self._waiting.append(caller)
            return True

    def reject_early(self) -> bool:
        """Turn away who waits but is no peer: gone, or heard for a while. Tell whether to look again."""
        with self._lock:
            if not self._is_open:  # who speaks now may well be a peer: that is being settled, or has been
                return False
            for caller in tuple(self._waiting):
                heard = peek(caller.sock)
                if heard is None:
                    continue
                since = self._spoke.setdefault(caller, time.monotonic())
                if not heard or time.monotonic() - since > _AHEAD:
                    self._turn_away(caller, _TOO_EARLY)
            return bool(self._waiting)

    # Called by the session ---------------------------------------------------------------------------------

    def release(self, link: Link) -> bool:
        """Give up the holder of a place, who has hung up, if somebody waits for it; tell whether somebody does."""
        with self._lock:
            for seat in self._seats:
                if seat.link is link and self._is_open and self._is_contested(seat):
                    self._leave(seat, "hung up before the first sync")
                    return True
        return False

    def check_silent(self) -> None:
        """No forward can have begun yet: who has spoken is no peer. Raises PeerLost where nobody else may be."""
        with self._lock:
            for caller in tuple(self._waiting):
                if peek(caller.sock) is not None:
                    self._turn_away(caller, _TOO_EARLY)
            for seat in self._seats:
                if seat.caller is not None and peek(seat.caller.sock) is not None:
                    if not self._is_contested(seat):
                        raise PeerLost(seat.link.name, "hung up, or said something, before the first sync")
                    self._leave(seat, _TOO_EARLY)

    def settle(self, speaks: Callable[[int], bool], seconds: float | None) -> None:
        """A forward has begun: give contested places to those who speak. Nobody waits any more after that.

        ``speaks`` tells whether a node sends this one something in a forward. Raises PeerLost, naming the nodes of
        whom nothing is heard within ``seconds`` (None: as long as it takes), Stopped.
        """
        with self._lock:
            self._is_open = False
            contested = [s for s in self._seats if self._is_contested(s) and speaks(s.node)]
            for seat in self._seats:
                if seat.caller is None and seat not in contested:
                    raise PeerLost(seat.link.name, "hung up before the first sync")
            callers = [seat.caller for seat in contested if seat.caller is not None] + self._waiting
        try:
            if contested:
                self._seat(
                    contested, callers, time.monotonic() + (_MAX_SECONDS if seconds is None else seconds)
                )
        finally:
            self.close()

    def close(self) -> None:
        """Turn away everybody who has no place."""
        with self._lock:
            self._is_open = False
            for caller in tuple(self._waiting):
                self._turn_away(caller, "all peers are here")
            for caller, reason in self._unseated:
                self._listener.reject(caller, reason)
            self._unseated.clear()

    # -----------------------------------------------------------------------------------------------------

    def _seat(
        self, contested: list[AcceptedPeer], callers: list[PendingConnection], deadline: float
    ) -> None:
        speaking: set[PendingConnection] = set()
        while (holders := self._holders(contested, [c for c in callers if c in speaking])) is None:
            silent = {caller.sock: caller for caller in callers if caller not in speaking}
            ready = self._watch.any_readable(silent, deadline - time.monotonic())
            if not ready:
                names = ", ".join(seat.link.name for seat in contested)
                raise PeerLost(names, f"{len(callers)} have called, not all of the peers speak in time")
            for sock in ready:
                if not peek(sock):
                    callers.remove(silent[sock])
                else:
                    speaking.add(silent[sock])
        with self._lock:
            for seat in contested:
                if seat.caller not in holders:
                    self._leave(seat, "another caller from a peer's address was the peer")
                self._watch.remove(seat.link)
            self._waiting = [caller for caller in self._waiting if caller not in holders]
        for seat, caller in zip(contested, holders, strict=True):
            seat.caller = caller
            seat.link.adopt(caller.sock)
            self._watch.add(seat.link)

    def _holders(
        self, contested: list[AcceptedPeer], callers: list[PendingConnection]
    ) -> list[PendingConnection] | None:
        """Return a caller for each place, in the order in which they came; None where one has none yet."""
        holders: list[PendingConnection] = []
        for seat in contested:
            fitting = [c for c in callers if c not in holders and self._may_sit(c, seat)]
            if not fitting:
                return None
            holders.append(fitting[0])
        return holders

    def _may_sit(self, caller: PendingConnection, seat: AcceptedPeer) -> bool:
        if caller.host in seat.addresses:
            return True
        return not seat.is_listed and not any(caller.host in other.addresses for other in self._seats)

    def _is_contested(self, seat: AcceptedPeer) -> bool:
        return any(self._may_sit(caller, seat) for caller in self._waiting)

    def _leave(self, seat: AcceptedPeer, reason: str) -> None:
        """Unseat the holder, whose socket stays with the link until it has another."""
        self._watch.remove(seat.link)
        if seat.caller is not None:
            self._unseated.append((seat.caller, reason))
            seat.caller = None

    def _turn_away(self, caller: PendingConnection, reason: str) -> None:
        self._waiting.remove(caller)
        self._spoke.pop(caller, None)
        self._listener.reject(caller, reason)


def peek(sock: socket.socket) -> bytes | None:
    """Return the first byte that is there to be read, none at the end of the stream; None while it is silent."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""
