"""Carries out the sync plan on the links of a node (C++ ``NnNetworkNodeSynchronizer``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dllama_proto.messages import NetConfig, NodeConfig
from dllama_proto.sync_plan import SyncStep, Transfer, plan_syncs
from dllama_worker.node.exchange import Exchange, Lane
from dllama_worker.node.transport import Link

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
        # Every layer moves the same columns over the same links: one lane serves all of them.
        lanes: dict[tuple[int, int, int, int], Lane] = {}

        def lane(step: SyncStep, peer: int, transfer: Transfer) -> Lane:
            key = (step.pipe_index, peer, transfer.start, transfer.size)
            if key not in lanes:
                pipe = pipes[step.pipe_index]
                lanes[key] = Lane(links[peer], pipe, transfer.row_bytes, transfer.start, transfer.size)
            return lanes[key]

        def exchange(step: SyncStep) -> Exchange:
            return Exchange(
                [lane(step, t.receiver, t) for t in step.sends],
                [lane(step, t.sender, t) for t in step.receives],
            )

        self._exchanges = tuple(
            tuple(exchange(step) for step in segment) for segment in plan_syncs(net, node).segments
        )

    def sync(self, segment_index: int, batch_size: int) -> None:
        """Run the segment's syncs for the first ``batch_size`` rows. Raises PeerLost."""
        for exchange in self._exchanges[segment_index]:
            exchange.run(batch_size)
