"""The one thing that a tap may change: the peer list in a root's greeting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dllama_proto.connection import Connection, Role
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.messages import Greeting, Peer

__all__ = ["PeerRewriter"]


class PeerRewriter:
    """Passes on what a dialler says, with other peers in its greeting; what is no greeting stays as it is."""

    def __init__(self, peers: Mapping[Peer, Peer]) -> None:
        self._peers = peers
        self._connection: Connection | None = Connection(Role.WORKER) if peers else None
        self._held = b""

    def pass_on(self, data: bytes | memoryview) -> bytes | memoryview:
        """Return what to send now: nothing while a greeting is not whole."""
        if self._connection is None:
            return data
        self._held += data
        taken = 0
        while taken < len(self._held):
            n = min(self._connection.n_wanted, len(self._held) - taken)
            self._connection.receive_data(self._held[taken : taken + n])
            taken += n
            try:
                event = self._connection.next_event()
            except RemoteProtocolError:
                return self.rest()
            if isinstance(event, Greeting):
                peers = tuple(self._peers.get(peer, peer) for peer in event.peers)
                greeting = bytes(Connection(Role.ROOT).send(replace(event, peers=peers)))
                return greeting + self.rest()[taken:]
        # What was fed is in the connection; it is fed anew with the next bytes.
        self._connection = Connection(Role.WORKER)
        return b""

    def rest(self) -> bytes:
        """Return what was held back, and hold nothing back any more."""
        self._connection, held = None, self._held
        self._held = b""
        return held
