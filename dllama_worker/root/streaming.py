"""Weights on their way out: every worker is fed at the same time, straight from the model file's pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from dllama_proto.events import Ack, WeightsEnd
from dllama_worker.model.reader import ModelFile
from dllama_worker.node.channel import Channel
from dllama_worker.node.node import Node
from dllama_worker.root.cluster import Cluster
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces

__all__ = ["count_weight_bytes", "load_weights"]


def count_weight_bytes(model: ModelFile, partition: Partition, nodes: Iterable[int]) -> int:
    """Return the bytes that :func:`load_weights` will move for these nodes."""
    pieces = (piece for node in nodes for piece in node_weight_pieces(model.header, partition, node))
    return sum(piece.header.n_bytes for piece in pieces)


def load_weights(
    model: ModelFile,
    pieces: Callable[[int], Iterable[WeightPiece]],
    root: Node | None,
    cluster: Cluster,
    *,
    advance: Callable[[int], None],
) -> None:
    """Load the root's own pieces and send every worker its own; ``pieces`` gives those of a node.

    ``root`` None has its weights already.

    ``advance`` is told of the bytes as they go, from one thread at a time. Raises PeerLost for the first
    worker that is lost, having closed the links of all.
    """
    lock = threading.Lock()

    def moved(n: int) -> None:
        with lock:
            advance(n)

    channels = cluster.channels
    with ThreadPoolExecutor(max_workers=len(channels) or 1, thread_name_prefix="weights") as pool:
        futures = [
            pool.submit(_send, channel, pieces(node), model, moved) for node, channel in channels.items()
        ]
        try:
            if root is not None:
                _load_own(root, pieces(0), model, moved)
            for future in futures:
                future.result()
        except BaseException:
            # The other threads may be waiting for workers that will not read on: wake them.
            for channel in channels.values():
                channel.link.shutdown()
            raise


def _load_own(
    root: Node, pieces: Iterable[WeightPiece], model: ModelFile, moved: Callable[[int], None]
) -> None:
    for piece in pieces:
        header = piece.header
        for offset, data in piece.portions(model):
            root.weights.load(header.name, header.op_index, offset, data)
            moved(len(data))


def _send(
    channel: Channel, pieces: Iterable[WeightPiece], model: ModelFile, moved: Callable[[int], None]
) -> None:
    """Send one worker its pieces and the end, and wait until it is ready."""
    for piece in pieces:
        channel.send(piece.header)
        for _, data in piece.portions(model):
            channel.send_payload(data)
            moved(len(data))
    channel.send(WeightsEnd())
    channel.expect(Ack)
