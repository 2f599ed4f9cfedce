"""The root's side of the network: it dials, greets, configures and commands (C++ ``NnNetwork::connect``)."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from dllama_proto.connection import Connection, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Ack, AckKind
from dllama_proto.limits import Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Peer
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.channel import Channel
from dllama_worker.node.transport import Link, lost

__all__ = ["Cluster"]

#: Seconds between two looks whether a worker listens.
_LOOK_AGAIN = 0.05


class Cluster:
    """The links to all workers. ``links`` is by node index; worker i of the list is node i + 1.

    A ``patient`` one waits for workers that do not listen yet: C++ ones stop to during a session, so right
    after one they cannot be reached for a moment.
    """

    def __init__(
        self,
        addresses: Sequence[Endpoint],
        limits: Limits | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self.addresses = tuple(addresses)
        self.links: dict[int, Link] = {}
        self._limits = limits or Limits()
        self._patience = timeouts.LISTEN_AGAIN if patient else 0.0
        self._channels: dict[int, Channel] = {}

    @property
    def n_nodes(self) -> int:
        """Workers and the root."""
        return len(self.addresses) + 1

    @property
    def channels(self) -> dict[int, Channel]:
        """The conversation with each worker, by node index."""
        return dict(self._channels)

    def connect(self) -> None:
        """Greet every worker in turn.

        Raises PeerLost naming the worker and its address, RemoteProtocolError where something else answers.
        """
        for worker_index, address in enumerate(self.addresses):
            self._greet(worker_index, address)

    def configure(self, net: NetConfig, configs: Sequence[NodeConfig]) -> None:
        """Let the workers join each other, and send every one what all share and its own part.

        ``configs`` is by node index, the root's too. Raises PeerLost.
        """
        # One worker after another joins the mesh: nothing on the wire tells who dials, so workers on one host
        # know each other by the order in which they come. C++ roots leave that order to luck.
        for channel in self._channels.values():
            channel.link.set_deadline(timeouts.CONFIGURE)
            channel.send(Ack(AckKind.ROOT_READY))
            channel.send(Ack(AckKind.NET_CONFIG_AHEAD))
            channel.send(net)
            channel.expect(Ack)
        # All prepare at the same time.
        for node_index, channel in self._channels.items():
            channel.link.set_deadline(timeouts.CONFIGURE)
            channel.send(Ack(AckKind.NODE_CONFIG_AHEAD))
            channel.send(configs[node_index])
        for channel in self._channels.values():
            channel.expect(Ack)
            channel.link.set_deadline(None)

    def command(self, position: int, batch_size: int) -> None:
        """Let every worker begin a forward. Raises PeerLost."""
        packet = ControlPacket(position, batch_size)
        for channel in self._channels.values():
            channel.send(packet)

    def forward_done(self) -> None:
        """Note that every slice of the forward has been exchanged."""
        for channel in self._channels.values():
            channel.slices_exchanged()

    def stop(self, position: int) -> None:
        """Tell every worker that the session is over; who has gone already is not asked."""
        for channel in self._channels.values():
            try:
                channel.send(ControlPacket(position, 0))
            except PeerLost:
                continue

    def close(self) -> None:
        """Close every link."""
        for link in self.links.values():
            link.close()
        self.links.clear()
        self._channels.clear()

    def _greet(self, worker_index: int, address: Endpoint) -> None:
        node_index = worker_index + 1
        name = f"node {node_index} ({address})"
        try:
            sock = self._dial(address)
        except OSError as error:
            raise lost(f"{name} cannot be reached", error) from error
        link = self.links[node_index] = Link(sock, name)
        link.set_deadline(timeouts.GREETING)
        channel = self._channels[node_index] = Channel(link, Connection(Role.ROOT, limits=self._limits))
        others = (other for i, other in enumerate(self.addresses) if i != worker_index)
        peers = tuple(Peer(other.host, other.port) for other in others)
        channel.send(Greeting(len(self.addresses), worker_index, peers))
        channel.expect(Ack)

    def _dial(self, address: Endpoint) -> socket.socket:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return socket.create_connection((address.host, address.port), timeout=timeouts.DIAL)
            except ConnectionRefusedError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_AGAIN)
