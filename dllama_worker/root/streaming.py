"""Weights on their way out: every worker is fed at the same time, straight from the model file's pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait

from dllama_proto.events import Ack, WeightsEnd
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost, PeerRefused
from dllama_worker.model.source import ModelSource
from dllama_worker.node.channel import Channel
from dllama_worker.node.node import Node
from dllama_worker.root.cluster import Cluster
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces

__all__ = ["count_weight_bytes", "load_weights"]

#: Seconds between two looks whether a worker refuses what it is sent: one for each piece would cost time.
_LOOK_INTERVAL = 0.25


def count_weight_bytes(model: ModelSource, partition: Partition, nodes: Iterable[int]) -> int:
    """Return the bytes that :func:`load_weights` will move for these nodes."""
    pieces = (piece for node in nodes for piece in node_weight_pieces(model.header, partition, node))
    return sum(piece.header.n_bytes for piece in pieces)


def load_weights(
    model: ModelSource,
    pieces: Callable[[int], Iterable[WeightPiece]],
    root: Node | None,
    cluster: Cluster,
    *,
    advance: Callable[[int], None],
) -> None:
    """Load the root's own pieces and send every worker its own; ``pieces`` gives those of a node.

    ``root`` None has its weights already.

    ``advance`` is told of the bytes as they go, from one thread at a time. Raises PeerRefused for a worker that
    says why it cannot go on, else PeerLost for the first that is lost, having closed the links of all.
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
            wait(futures, return_when=FIRST_EXCEPTION)
            _check(futures, cluster)
        except BaseException:
            # The other threads may be waiting for workers that will not read on: wake them.
            for channel in channels.values():
                channel.link.shutdown()
            raise


def _check(futures: list[Future[None]], cluster: Cluster) -> None:
    """Raise what went wrong first, but rather what a worker says: those that are left hang up when one goes."""
    failed = next((future.exception() for future in futures if future.done() and future.exception()), None)
    if failed is None:
        return
    if not isinstance(failed, PeerLost):
        raise failed
    try:
        for future in as_completed(futures, timeout=timeouts.REFUSAL):
            if isinstance(refused := future.exception(), PeerRefused):
                raise refused
    except TimeoutError:
        pass
    raise cluster.explain(failed, look=False)


def _load_own(
    root: Node, pieces: Iterable[WeightPiece], model: ModelSource, moved: Callable[[int], None]
) -> None:
    for piece in pieces:
        header = piece.header
        for offset, data in piece.portions(model):
            root.weights.load(header.name, header.op_index, offset, data)
            moved(len(data))


def _send(
    channel: Channel, pieces: Iterable[WeightPiece], model: ModelSource, moved: Callable[[int], None]
) -> None:
    """Send one worker its pieces and the end, and wait until it is ready."""
    look_at = time.monotonic() + _LOOK_INTERVAL
    for piece in pieces:
        if (now := time.monotonic()) >= look_at:
            channel.look_for_refusal()
            look_at = now + _LOOK_INTERVAL
        channel.send(piece.header)
        for _, data in piece.portions(model):
            channel.send_payload(data)
            moved(len(data))
    channel.send(WeightsEnd())
    channel.expect(Ack)
