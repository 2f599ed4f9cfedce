"""The root's side of the network: it dials, greets, configures and commands (C++ ``NnNetwork::connect``)."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Mapping, Sequence

from dllama_proto.connection import Connection, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import Ack, AckKind
from dllama_proto.limits import Limits
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Peer
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost, PeerRefused
from dllama_worker.node.channel import Channel
from dllama_worker.node.memory import memory_need
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.transport import Link, PendingConnection
from dllama_worker.report import Report
from dllama_worker.root.dial import dial_all, node_name
from dllama_worker.root.lost_worker import hint

__all__ = ["Cluster"]


class Cluster:
    """The links to all workers. ``links`` is by node index; worker i of the list is node i + 1.

    The first time it connects it tries for ``patience`` seconds where a worker is not there yet, and tells the
    ``report`` who is missing.
    """

    def __init__(
        self,
        addresses: Sequence[Endpoint],
        limits: Limits | None = None,
        *,
        patience: float = 0.0,
        report: Report | None = None,
        tls: TlsContexts | None = None,
    ) -> None:
        self.addresses = tuple(addresses)
        self.links: dict[int, Link] = {}
        self._limits = limits or Limits()
        self._patience = patience
        self._tls = tls
        self._report = report or Report()
        self._channels: dict[int, Channel] = {}
        self._net: NetConfig | None = None
        self._configs: Sequence[NodeConfig] = ()

    @property
    def n_nodes(self) -> int:
        """Workers and the root."""
        return len(self.addresses) + 1

    @property
    def channels(self) -> dict[int, Channel]:
        """The conversation with each worker, by node index."""
        return dict(self._channels)

    def connect(self, connected: Callable[[str], None] = lambda name: None) -> None:
        """Connect to all workers, then greet every one in turn; ``connected`` is told the name of each.

        Raises PeerLost naming the worker and its address, PeerRefused where it says why, RemoteProtocolError where
        something else answers.
        """
        patience, self._patience = self._patience, 0.0

        def tell(missing: Mapping[int, PeerLost]) -> None:
            names = ", ".join(node_name(node, self.addresses[node - 1]) for node in missing)
            reason = next(iter(missing.values())).reason.partition(";")[0]
            self._report.info(
                "waiting",
                f"waiting up to {patience:g} s for {names}: {reason}",
                nodes=list(missing),
                seconds=patience,
            )

        found = dial_all(dict(enumerate(self.addresses, 1)), patience, tell, self._tls)
        try:
            for node_index in tuple(found):
                self._greet(node_index, found.pop(node_index))
                connected(self.links[node_index].name)
        except PeerLost as error:
            raise self.explain(error) from error
        finally:
            for pending in found.values():
                pending.close()

    def configure(self, net: NetConfig, configs: Sequence[NodeConfig]) -> None:
        """Let the workers join each other, and send every one what all share and its own part.

        ``configs`` is by node index, the root's too. Raises PeerLost, PeerRefused, RemoteProtocolError.
        """
        self._net, self._configs = net, configs
        try:
            self._configure(net, configs)
        except PeerLost as error:
            raise self.explain(error) from error

    def explain(self, error: PeerLost, *, look: bool = True) -> PeerLost:
        """Return the best that is known of why the workers were lost before all are ready.

        That is what any of them says (where ``look`` allows to read from the others), else the error, with what
        may have been the cause.
        """
        if isinstance(error, PeerRefused):
            return error
        refused = self._refusal(error) if look else None
        if refused is not None:
            return refused
        for node_index, channel in self._channels.items():
            if channel.link.name == error.node:
                need = None
                if self._net is not None and node_index < len(self._configs):
                    need = memory_need(self._net, self._configs[node_index])
                return error.with_hint(hint(channel.connection.phase, need))
        return error

    def _refusal(self, error: PeerLost) -> PeerRefused | None:
        """Wait a moment for what the other workers say: who hangs up may only have seen another go."""
        deadline = time.monotonic() + timeouts.REFUSAL
        with selectors.DefaultSelector() as selector:
            for channel in self._channels.values():
                if channel.link.name != error.node and channel.connection.may_be_refused:
                    channel.link.set_deadline(timeouts.REFUSAL)
                    selector.register(channel.link, selectors.EVENT_READ, channel)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    try:
                        key.data.look_for_refusal()
                    except PeerRefused as refused:
                        return refused
                    except (PeerLost, RemoteProtocolError):
                        pass
                    # It said something else, or has gone as well.
                    selector.unregister(key.fileobj)
        return None

    def _configure(self, net: NetConfig, configs: Sequence[NodeConfig]) -> None:
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

    def _greet(self, node_index: int, connection: PendingConnection) -> None:
        worker_index = node_index - 1
        name = node_name(node_index, self.addresses[worker_index])
        link = self.links[node_index] = Link(connection, name)
        link.set_deadline(timeouts.GREETING)
        channel = self._channels[node_index] = Channel(link, Connection(Role.ROOT, limits=self._limits))
        others = (other for i, other in enumerate(self.addresses) if i != worker_index)
        peers = tuple(Peer(other.host, other.port) for other in others)
        channel.send(Greeting(len(self.addresses), worker_index, peers))
        channel.expect(Ack)
