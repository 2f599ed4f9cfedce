"""Chooses weights for ``--split auto``: by speed, as far as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_proto.enums import FloatType
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.report import format_bytes
from dllama_worker.root.planning.demand import Demand, count_demand
from dllama_worker.sharding.apportion import partition_by_weights
from dllama_worker.sharding.partition import Partition

__all__ = ["Choice", "check_fit", "choose_partition", "fits"]

#: A node that has too much gets this much less, at least and at most, before all is shared out again.
_SMALLEST_STEP, _LARGEST_STEP = 0.97, 0.5
_TRIES = 400


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen: ``weights`` as ``--split`` takes them, and the nodes that memory held back."""

    partition: Partition
    demand: Demand
    weights: tuple[float, ...]
    limited: tuple[int, ...]

    @property
    def split(self) -> str:
        """The same split as ``--split`` takes it, the largest weight being 100."""
        largest = max(self.weights)
        return ":".join(f"{100 * weight / largest:.3g}" for weight in self.weights)


def choose_partition(
    header: ModelHeader,
    sync_type: FloatType,
    speeds: Sequence[float],
    memory: Sequence[int] | None = None,
) -> Choice:
    """Share a model out in proportion to speeds; who lacks the memory for that gets less, the others more.

    A speed of 0 (the root's only) means that the node is to compute logits alone. Raises UsageError where
    the model does not fit into the memory at all.
    """
    weights = list(speeds)
    limited: set[int] = set()
    for _ in range(_TRIES):
        partition = partition_by_weights(header, weights)
        demand = count_demand(header, partition, sync_type)
        if memory is None or fits(demand, memory):
            break
        excess = [
            (node, available / need.memory)
            for node, (need, available) in enumerate(zip(demand.nodes, memory, strict=True))
            if need.memory > available
        ]
        limited.update(node for node, _ in excess)
        for node, ratio in excess:
            weights[node] *= min(max(ratio, _LARGEST_STEP), _SMALLEST_STEP)
    else:
        check_fit(demand, memory or ())
    return Choice(partition, demand, tuple(weights), tuple(sorted(limited)))


def fits(demand: Demand, memory: Sequence[int] | None) -> bool:
    """Tell whether every node has the memory it needs; what is not stated is taken to suffice."""
    return memory is None or all(
        need.memory <= available for need, available in zip(demand.nodes, memory, strict=True)
    )


def check_fit(demand: Demand, memory: Sequence[int]) -> None:
    """Refuse what does not fit into the memory that each node is said to have. Raises UsageError."""
    lacking = [
        f"node {node} needs {format_bytes(need.memory)} and has {format_bytes(available)}"
        for node, (need, available) in enumerate(zip(demand.nodes, memory, strict=True))
        if need.memory > available
    ]
    if lacking:
        raise UsageError(
            f"the model does not fit so: {'; '.join(lacking)}. Use more nodes or a shorter --max-seq-len, or "
            "leave it to --split auto where others have memory to spare"
        )
