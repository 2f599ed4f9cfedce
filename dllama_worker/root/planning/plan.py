"""A plan: what a split would make of a model on given machines and links."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dllama_proto.enums import FloatType
from dllama_proto.even_split import even_node_counts
from dllama_proto.model_header import ModelHeader
from dllama_proto.model_shapes import MODEL_SHAPES
from dllama_worker.errors import UsageError
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from dllama_worker.model.presets import preset_header
from dllama_worker.root.layout import sync_type_of
from dllama_worker.root.planning.choose import choose_partition
from dllama_worker.root.planning.demand import Demand, count_demand
from dllama_worker.root.planning.estimate import NodeSpeed, TokenTime, estimate, sync_seconds
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.sharding.apportion import max_nodes, partition_for, possible_node_counts
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.split import EVEN

__all__ = ["Plan", "header_of", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What came out: ``first`` is a token at the beginning of the context, ``last`` one at its end.

    ``split`` is as ``--split`` takes it. ``possible`` are the numbers of computing nodes with an even split,
    ``cpp`` those that the C++ root can do; ``obstacle`` says why there cannot be more.
    """

    header: ModelHeader
    sync_type: FloatType
    split: str
    partition: Partition
    demand: Demand
    memory: tuple[int, ...] | None
    first: TokenTime
    last: TokenTime
    node_seconds: tuple[float, ...]
    possible: tuple[int, ...]
    cpp: tuple[int, ...]
    obstacle: str

    @property
    def lacking(self) -> list[int]:
        """The nodes that have less memory than they need."""
        return self.demand.lacking(self.memory)


def header_of(model: str, weights: str, max_seq_len: int = 0) -> ModelHeader:
    """Return the header of a model file, or of a preset. Raises UsageError."""
    if Path(model).exists():
        return open_model(Path(model), OpenOptions(max_seq_len)).header
    try:
        header = preset_header(model, FloatType[weights.upper()])
    except ValueError:
        raise UsageError(
            f"{model} is neither a file nor one of the known shapes: {', '.join(MODEL_SHAPES)}"
        ) from None
    return header.with_max_seq_len(max_seq_len)


def make_plan(options: PlanOptions) -> Plan:
    """Plan. Raises UsageError where the split is impossible, saying which ones would be possible."""
    header = header_of(options.model, options.weights, options.max_seq_len)
    sync_type = sync_type_of(header.weight_float_type)
    split = str(options.split)
    if options.split.auto:
        choice = choose_partition(
            header, sync_type, options.speeds, options.memory, options.split.root_share
        )
        partition, demand, split = choice.partition, choice.demand, choice.split
    else:
        partition = partition_for(header, options.split, options.n_nodes)
        demand = count_demand(header, partition, sync_type)
    speeds_of = [NodeSpeed(speed) for speed in options.speeds]
    syncs = [sync_seconds(segment, options.link) for segment in demand.syncs]
    return Plan(
        header=header,
        sync_type=sync_type,
        split=split,
        partition=partition,
        demand=demand,
        memory=options.memory,
        first=estimate(demand.nodes, speeds_of, syncs),
        last=estimate(demand.nodes, speeds_of, syncs, header.seq_len - 1),
        node_seconds=tuple(
            sum(speed.seconds(work, 0) for work in need.segments)
            for speed, need in zip(speeds_of, demand.nodes, strict=True)
        ),
        possible=tuple(possible_node_counts(header)),
        cpp=tuple(even_node_counts(header)),
        obstacle=_obstacle(header),
    )


def _obstacle(header: ModelHeader) -> str:
    """Say what keeps more nodes from sharing the model than ever can."""
    too_many = max(max_nodes(header), *possible_node_counts(header)) + 1
    try:
        partition_for(header, EVEN, too_many)
    except UsageError as error:
        return str(error)
    return ""
