"""Carries out the sync plan on the links of a node (C++ ``NnNetworkNodeSynchronizer``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dllama_proto.messages import NetConfig, NodeConfig
from dllama_proto.sync_plan import SyncStep, plan_syncs
from dllama_worker.exchange import Exchange, Lane
from dllama_worker.transport import Link

__all__ = ["NetworkSynchronizer"]


class NetworkSynchronizer:
    """Exchanges pipes over ``links`` (by node index); everything is laid out once, before the first forward."""

    def __init__(
        self,
        net: NetConfig,
        node: NodeConfig,
        pipes: Sequence[memoryview],
        links: Mapping[int, Link],
    ) -> None:
        self._exchanges = tuple(
            tuple(_exchange(step, pipes[step.pipe_index], links) for step in segment)
            for segment in plan_syncs(net, node).segments
        )

    def sync(self, segment_index: int, batch_size: int) -> None:
        """Run the segment's syncs for the first ``batch_size`` rows. Raises PeerLost."""
        for exchange in self._exchanges[segment_index]:
            exchange.run(batch_size)


def _exchange(step: SyncStep, pipe: memoryview, links: Mapping[int, Link]) -> Exchange:
    return Exchange(
        [Lane(links[t.receiver], pipe, t.row_bytes, t.start, t.size) for t in step.sends],
        [Lane(links[t.sender], pipe, t.row_bytes, t.start, t.size) for t in step.receives],
    )
