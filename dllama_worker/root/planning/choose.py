"""Chooses weights for ``--split auto``: by speed, as far as memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_proto.enums import FloatType
from dllama_proto.formatting import format_bytes
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.root.planning.demand import Demand, count_demand
from dllama_worker.sharding.apportion import partition_by_weights
from dllama_worker.sharding.partition import Partition

__all__ = ["WeightedPartition", "check_fit", "choose_partition"]

#: The weight of a node that lacks memory is multiplied by the part of its need that it has, within these bounds;
#: then all is shared out again.
_MIN_RATIO, _MAX_RATIO = 0.5, 0.97
_MAX_TRIES = 400


@dataclass(frozen=True, slots=True)
class WeightedPartition:
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
    root_share: float = 1.0,
) -> WeightedPartition:
    """Share a model out in proportion to speeds; who lacks the memory for that gets less, the others more.

    The root's speed is counted ``root_share`` times; with 0 it only embeds and computes its part of the logits.
    Raises UsageError where the model does not fit into the memory at all.
    """
    weights = [speeds[0] * root_share, *speeds[1:]]
    limited: set[int] = set()
    for _ in range(_MAX_TRIES):
        partition = partition_by_weights(header, weights)
        demand = count_demand(header, partition, sync_type)
        lacking = demand.lacking(memory)
        if memory is None or not lacking:
            break
        limited.update(lacking)
        for node in lacking:
            ratio = memory[node] / demand.nodes[node].memory
            weights[node] *= min(max(ratio, _MIN_RATIO), _MAX_RATIO)
    else:
        check_fit(demand, memory or ())
    return WeightedPartition(partition, demand, tuple(weights), tuple(sorted(limited)))


def check_fit(demand: Demand, memory: Sequence[int]) -> None:
    """Refuse what does not fit into the memory that each node is said to have. Raises UsageError."""
    lacking = [
        f"node {node} needs {format_bytes(demand.nodes[node].memory)} and has {format_bytes(memory[node])}"
        for node in demand.lacking(memory)
    ]
    if lacking:
        raise UsageError(
            f"the model does not fit so: {'; '.join(lacking)}. Use more nodes or a shorter --max-seq-len, or "
            "leave it to --split auto where others have memory to spare"
        )
