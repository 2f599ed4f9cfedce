"""What the root wants this node to be (C++ ``NnWorkerConfigReader``)."""

from __future__ import annotations

from dllama_proto.events import Ack, AckKind
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_worker.node.channel import Channel

__all__ = ["ConfigReader"]


class ConfigReader:
    """Reads the two configs from the root; the protocol verifies each before it is returned."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read_net(self) -> NetConfig:
        """Wait for what all nodes share, and acknowledge it. Raises PeerLost, RemoteProtocolError."""
        self._channel.expect(Ack)
        net = self._channel.expect(NetConfig)
        self._channel.send(Ack(AckKind.NET_CONFIG))
        return net

    def read_node(self) -> NodeConfig:
        """Wait for this node's part. Raises PeerLost, RemoteProtocolError.

        It is acknowledged by :meth:`accept`, once the node knows that it can run it.
        """
        self._channel.expect(Ack)
        return self._channel.expect(NodeConfig)

    def accept(self) -> None:
        """Tell the root that this node can run its config: weights may come."""
        self._channel.send(Ack(AckKind.NODE_CONFIG))
