"""A root that stops at a point of a session and does what it is told there.

``python -m tests.faults.puppet POINT HOST:PORT…`` is a real root on the demo model, made of the parts of
``dllama-root``. At POINT it writes the point's name and waits for a line: ``go`` goes on, ``half`` closes its
direction of every link, ``reset`` resets them all. At the end it writes the text.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dllama_proto.endpoint import Endpoint
from dllama_proto.enums import FloatType
from dllama_proto.events import Ack, AckKind, WeightsEnd
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.model.opening import open_model
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.node import Node
from dllama_worker.node.transport import PendingConnection
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.generation import Generation
from dllama_worker.root.inference import Inference
from dllama_worker.root.layout import build_layout
from dllama_worker.root.sampler import Sampler
from dllama_worker.sharding.partition import even_partition
from dllama_worker.sharding.pieces import node_weight_pieces
from dllama_worker.tokenizer.opening import load_tokenizer

__all__ = ["ACK", "N_TOKENS", "POINTS", "PROMPT"]

#: In the order of a session. ``slice`` is in the middle of a slice of the prompt's forward.
POINTS = ("handshake", "mesh", "config", "weights", "prefill", "slice", "decode", "idle")

PROMPT = "ROMEO:\nWhat light"
N_TOKENS = 16

ACK = bytes.fromhex("aaaa6701")


class _Puppet(Cluster):
    """A cluster whose conversation can be held at a point. The last worker is the one that is looked at."""

    def __init__(self, addresses: Sequence[Endpoint], point: str) -> None:
        super().__init__(addresses)
        self._point = point
        self._n_commands = 0
        self._sockets: list[socket.socket] = []

    def at(self, point: str) -> None:
        """Wait for orders, if this is where."""
        if point != self._point:
            return
        print(point, flush=True)
        while (order := sys.stdin.readline().strip()) != "go":
            for sock in self._sockets:
                if order == "half":
                    sock.shutdown(socket.SHUT_WR)
                elif order == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.close()

    def connect(self, connected: Callable[[str], None] = lambda name: None) -> None:
        for node_index, address in enumerate(self.addresses, 1):
            sock = socket.create_connection((address.host, address.port), timeout=5.0)
            self._sockets.append(sock)
            self._greet(node_index, PendingConnection(sock, address.host, address.port))
        self.at("handshake")
        last = self.links[len(self.addresses)]
        if self._point == "mesh":
            last.send(ACK)
            self.at("mesh")

    def configure(self, net: NetConfig, configs: Sequence[NodeConfig]) -> None:
        for node_index, channel in self.channels.items():
            channel.link.set_deadline(5.0)
            ready = channel.connection.send(Ack(AckKind.ROOT_READY))
            if self._point != "mesh" or node_index < len(self.addresses):
                channel.link.send(ready)
            channel.send(Ack(AckKind.NET_CONFIG_AHEAD))
            channel.send(net)
            channel.expect(Ack)
        self.at("config")
        for node_index, channel in self.channels.items():
            channel.send(Ack(AckKind.NODE_CONFIG_AHEAD))
            channel.send(configs[node_index])
        for channel in self.channels.values():
            channel.expect(Ack)
            channel.link.set_deadline(None)

    def command(self, position: int, batch_size: int) -> None:
        super().command(position, batch_size)
        self._n_commands += 1
        if self._n_commands == 1:
            self.at("prefill")
            if self._point == "slice":
                for link in self.links.values():
                    link.send(b"\x3c" * 37)
                self.at("slice")
        if self._n_commands == 4:
            self.at("decode")


def _main() -> None:
    point, *addresses = sys.argv[1:]
    report = Report()
    model = open_model(Path(MODEL_PATH))
    tokenizer = load_tokenizer(Path(TOKENIZER_PATH))
    cluster = _Puppet([Endpoint.parse(address) for address in addresses], point)
    partition = even_partition(model.header, cluster.n_nodes)
    layout = build_layout(model.header, partition, FloatType.Q80)
    cluster.connect()
    cluster.configure(layout.net, layout.nodes)
    root = Node(layout.net, layout.nodes[0], cluster.links, choose_kernels("", report), 1)
    for link in cluster.links.values():
        link.set_stall_timeout(5.0)
    for piece in node_weight_pieces(model.header, partition, 0):
        root.weights.load(piece.header.name, piece.header.op_index, piece.header.offset, piece.data(model))
    for node, channel in cluster.channels.items():
        pieces = list(node_weight_pieces(model.header, partition, node))
        for number, piece in enumerate(pieces):
            channel.send(piece.header)
            data = piece.data(model)
            half = len(data) // 2
            channel.send_payload(data[:half])
            if node == len(addresses) and number == len(pieces) // 2:
                cluster.at("weights")
            channel.send_payload(data[half:])
        channel.send(WeightsEnd())
    for channel in cluster.channels.values():
        channel.expect(Ack)
    root.ready(report)
    header = model.header
    inference = Inference(root, cluster, vocab_size=header.vocab_size, seq_len=header.seq_len)
    generation = Generation(inference, Sampler(0.0, 0.9, 1))
    decoder = tokenizer.decoder()
    logits = generation.evaluate(tokenizer.encode(PROMPT))
    text = b""
    for number, token in enumerate(generation.predict(logits, N_TOKENS)):
        if number == N_TOKENS // 2:
            cluster.at("idle")
        text += decoder.decode(token) or b""
    inference.finish()
    print(repr(text.decode()), flush=True)


if __name__ == "__main__":
    _main()
