"""Which of several connections is the peer: those from a peer's address, until the first forward tells.

Nothing on the wire says who has dialled. The first connection from a peer's address is taken for the peer's; a
stranger there may have been faster. But peers are silent until the first forward, and then all of them send. So
whatever connects from a peer's address later is kept waiting, and if there are such connections, the first forward
tells which is which.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dllama_proto.bounded_text import first_few
from dllama_proto.formatting import counted
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link, PendingConnection
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener

__all__ = ["AcceptedPeer", "PeerCandidates", "TOO_EARLY"]

#: Why a connection is rejected that a peer of this session cannot have made.
TOO_EARLY = "expected no bytes before the first sync, got some, or the connection was closed"

#: More connections than these do not wait; peers are few, and every one costs a descriptor.
_MAX_WAITING = 16

#: A root commands all workers within so many seconds, so a first slice may come so much earlier than the command.
_MAX_AHEAD = 1.0

#: Seconds that are as good as for ever, and that poll still takes.
_MAX_SECONDS = 1e6


@dataclass(slots=True, eq=False)
class AcceptedPeer:
    """A node that dials this one, and the connection that is taken for its own: None once that was closed.

    ``addresses`` are those of its host; ``is_listed`` tells whether the first connection came from one of them.
    """

    node: int
    link: Link
    connection: PendingConnection | None
    addresses: frozenset[str]
    is_listed: bool


class PeerCandidates:
    """The accepted peers of one session, in the order of the root's list, and the connections that wait."""

    def __init__(self, peers: Iterable[AcceptedPeer], listener: Listener, watch: LinkWatch) -> None:
        self._peers = list(peers)
        self._listener = listener
        self._watch = watch
        self._lock = threading.Lock()
        self._waiting: list[PendingConnection] = []
        self._first_heard: dict[PendingConnection, float] = {}
        self._dropped: list[tuple[PendingConnection, str]] = []
        self._is_open = True

    # Called by whoever accepts connections -----------------------------------------------------------------

    def offer(self, pending: PendingConnection) -> bool:
        """Keep a connection waiting that may be a peer's; tell whether it does."""
        with self._lock:
            fits = self._is_open and any(self._may_be(pending, peer) for peer in self._peers)
            if not fits or len(self._waiting) >= _MAX_WAITING:
                return False
            self._waiting.append(pending)
            return True

    def reject_early(self, reject: Callable[[PendingConnection, str], None] | None = None) -> bool:
        """Reject what waits but is no peer: closed, or heard too long before a forward. Tell whether some wait.

        ``reject`` takes them and the reason, instead of the listener.
        """
        with self._lock:
            if not self._is_open:  # what is heard now may well be a peer: identify_peers sees to it
                return False
            for pending in tuple(self._waiting):
                byte = pending.peek()
                if byte is None:
                    continue
                since = self._first_heard.setdefault(pending, time.monotonic())
                if not byte or time.monotonic() - since > _MAX_AHEAD:
                    self._reject(pending, TOO_EARLY, reject)
            return bool(self._waiting)

    # Called by the session ---------------------------------------------------------------------------------

    def release(self, link: Link) -> bool:
        """Drop a peer's closed connection if another one may be the peer's; return whether it was dropped."""
        with self._lock:
            for peer in self._peers:
                if peer.link is link and self._is_open and self._is_ambiguous(peer):
                    self._drop(peer, "closed the connection before the first sync")
                    return True
        return False

    def check_silent(self) -> None:
        """No forward can have begun yet: what has been heard is no peer.

        Raises PeerLost where no other connection can be the peer's.
        """
        with self._lock:
            for pending in tuple(self._waiting):
                if pending.peek() is not None:
                    self._reject(pending, TOO_EARLY)
            for peer in self._peers:
                if peer.connection is not None and peer.connection.peek() is not None:
                    if not self._is_ambiguous(peer):
                        raise PeerLost(
                            peer.link.name,
                            "closed the connection, or sent something, before the first sync",
                        )
                    self._drop(peer, TOO_EARLY)

    def identify_peers(self, sends: Callable[[int], bool], seconds: float | None) -> None:
        """A forward has begun: where several connections may be a peer's, take the one that sends.

        ``sends`` tells whether a node sends this one something in a forward. No connection waits any more after
        that. Raises PeerLost, naming the nodes of which nothing is heard within ``seconds`` (None: as long as it
        takes), Stopped.
        """
        with self._lock:
            self._is_open = False
            ambiguous = [peer for peer in self._peers if self._is_ambiguous(peer) and sends(peer.node)]
            for peer in self._peers:
                if peer.connection is None and peer not in ambiguous:
                    raise PeerLost(peer.link.name, "closed the connection before the first sync")
            taken = [peer.connection for peer in ambiguous if peer.connection is not None]
            candidates = taken + self._waiting
        try:
            if ambiguous:
                deadline = time.monotonic() + (_MAX_SECONDS if seconds is None else seconds)
                self._take(ambiguous, self._wait_until_identified(ambiguous, candidates, deadline))
        finally:
            self.close()

    def close(self) -> None:
        """Reject every connection that is no peer's."""
        with self._lock:
            self._is_open = False
            for pending in tuple(self._waiting):
                self._reject(pending, "all peers are here")
            for pending, reason in self._dropped:
                self._listener.reject(pending, reason)
            self._dropped.clear()

    # -------------------------------------------------------------------------------------------------------

    def _wait_until_identified(
        self, peers: list[AcceptedPeer], candidates: list[PendingConnection], deadline: float
    ) -> list[PendingConnection]:
        """Return the connection of each of the peers, as soon as enough candidates have sent something."""
        sending: set[PendingConnection] = set()
        while (found := self._match(peers, [c for c in candidates if c in sending])) is None:
            silent = [candidate for candidate in candidates if candidate not in sending]
            ready = self._watch.any_readable(silent, deadline - time.monotonic())
            if not ready:
                names = first_few(peer.link.name for peer in peers)
                raise PeerLost(
                    names,
                    "not every peer sent its part of the first sync in time, on "
                    f"{counted(len(candidates), 'connection')}",
                )
            for candidate in ready:
                byte = candidate.peek()
                if byte:
                    sending.add(candidate)
                elif byte is not None:
                    candidates.remove(candidate)
        return found

    def _take(self, peers: list[AcceptedPeer], connections: list[PendingConnection]) -> None:
        """Let each link go on over the connection that was found to be its peer's."""
        with self._lock:
            for peer in peers:
                if peer.connection not in connections:
                    self._drop(peer, "another connection was the peer's")
                self._watch.remove(peer.link)
            self._waiting = [pending for pending in self._waiting if pending not in connections]
        for peer, connection in zip(peers, connections, strict=True):
            peer.connection = connection
            peer.link.adopt(connection)
            self._watch.add(peer.link)

    def _match(
        self, peers: list[AcceptedPeer], candidates: list[PendingConnection]
    ) -> list[PendingConnection] | None:
        """Return a connection for each peer, in the order in which they came; None where one has none yet."""
        matched: list[PendingConnection] = []
        for peer in peers:
            fitting = [c for c in candidates if c not in matched and self._may_be(c, peer)]
            if not fitting:
                return None
            matched.append(fitting[0])
        return matched

    def _may_be(self, pending: PendingConnection, peer: AcceptedPeer) -> bool:
        if pending.host in peer.addresses:
            return True
        return not peer.is_listed and not any(pending.host in other.addresses for other in self._peers)

    def _is_ambiguous(self, peer: AcceptedPeer) -> bool:
        return any(self._may_be(pending, peer) for pending in self._waiting)

    def _drop(self, peer: AcceptedPeer, reason: str) -> None:
        """Take the peer's connection for a stranger's; its socket stays with the link until that has another."""
        self._watch.remove(peer.link)
        if peer.connection is not None:
            self._dropped.append((peer.connection, reason))
            peer.connection = None

    def _reject(
        self,
        pending: PendingConnection,
        reason: str,
        reject: Callable[[PendingConnection, str], None] | None = None,
    ) -> None:
        self._waiting.remove(pending)
        self._first_heard.pop(pending, None)
        (reject or self._listener.reject)(pending, reason)
