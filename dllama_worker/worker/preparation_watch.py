"""What a worker looks at while it prepares for a config or its weights, between two ops: who wants it to end."""

from __future__ import annotations

import time

from dllama_proto.messages import NetConfig, NodeConfig
from dllama_worker import timeouts
from dllama_worker.errors import MachineError
from dllama_worker.node.memory import memory_need
from dllama_worker.worker.link_watch import LinkWatch

__all__ = ["PreparationWatch", "preparation_seconds"]

#: Seconds between two looks: an op takes far less.
_LOOK_INTERVAL = 0.05

#: Bytes of pipes and buffers a second that the slowest machine makes ready, rope caches mostly.
_MIN_RATE = 16_000_000


def preparation_seconds(net: NetConfig, node: NodeConfig, seconds: float) -> float:
    """Return how long preparing for a config may take: ``seconds``, and more for large buffers."""
    need = memory_need(net, node)
    return seconds + (need.pipes + need.buffers) / _MIN_RATE


class PreparationWatch:
    """To be called between two ops. The work may take ``seconds`` at most, if that is not None."""

    def __init__(self, watch: LinkWatch, seconds: float | None = None) -> None:
        self._watch = watch
        self._seconds = seconds
        self._started = self._looked = time.monotonic()

    def __call__(self) -> None:
        """Look around, if it is time to.

        Raises Stopped, PeerLost where another node has hung up and the work takes longer than a moment, and
        MachineError where it takes too long.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_INTERVAL:
            return
        self._looked = now
        taken = now - self._started
        self._watch.look(at_links=taken > timeouts.ABANDONED)
        if self._seconds is not None and taken > self._seconds:
            raise MachineError(
                f"preparing for the configuration took longer than {self._seconds:.0f} s: use fewer ops, a "
                "shorter --max-seq-len at the root, or a longer --handshake-timeout here"
            )
