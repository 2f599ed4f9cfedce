"""Which partition a session gets: the one that was asked for, or one that is measured for.

Whatever cannot be is refused here, before any connection; only ``--split auto`` connects, to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_ops.table import KernelTable
from dllama_proto.enums import FloatType
from dllama_proto.formatting import counted
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.model.source import ModelSource
from dllama_worker.report import Report
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.planning.choose import check_fit, choose_partition
from dllama_worker.root.planning.demand import count_demand
from dllama_worker.root.planning.estimate import TokenTime
from dllama_worker.root.planning.measure import ClusterSpeed, measure_cluster
from dllama_worker.root.planning.split_report import report_expected, report_measured, report_split
from dllama_worker.sharding.apportion import partition_evenly, partition_for
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.split import for_each_node

__all__ = ["Decision", "decide_by_speed", "decide_partition"]

#: Measured speeds of equal machines differ a little: an even split stays unless it takes so much longer.
_MIN_GAIN = 1.03


@dataclass(frozen=True, slots=True)
class Decision:
    """A partition, why it was chosen, and what a token is expected to take with it and with an even one."""

    partition: Partition
    split: str
    expected: TokenTime
    even: TokenTime


def decide_partition(
    options: ClusterOptions, model: ModelSource, sync_type: FloatType, table: KernelTable, report: Report
) -> Partition:
    """Return the partition of a session, having said what it is unless it is the C++ root's.

    Raises UsageError where there is none, PeerLost and the like where measuring fails.
    """
    n_nodes = 1 + len(options.workers) + options.local_workers
    memory = None if options.memory is None else for_each_node("--memory", options.memory, n_nodes)
    if not options.stream_weights and not options.split.is_even:
        raise UsageError(
            f"--weights local goes with --split even, not {options.split}: which part of the model is whose is "
            "not on the wire, so workers with their own copy take the even split for granted"
        )
    if options.split.auto and n_nodes > 1:
        return _measured(options, model, sync_type, memory, table, report)
    partition = partition_for(model.header, options.split, n_nodes)
    if memory is not None:
        check_fit(count_demand(model.header, partition, sync_type), memory)
    if not partition.is_even:
        report_split(report, str(options.split), partition)
    return partition


def decide_by_speed(
    header: ModelHeader,
    sync_type: FloatType,
    speed: ClusterSpeed,
    memory: Sequence[int] | None = None,
    root_share: float = 1.0,
) -> Decision:
    """Share a model out by measured speeds, or evenly where that is about as fast and fits into memory.

    Raises UsageError where the model does not fit.
    """
    rates = [node.bytes_per_second for node in speed.nodes]
    choice = choose_partition(header, sync_type, rates, memory, root_share)
    even = partition_evenly(header, len(rates), root_share)
    even_demand = count_demand(header, even, sync_type)
    expected, even_time = speed.estimate(choice.demand), speed.estimate(even_demand)
    if even_time.seconds < expected.seconds * _MIN_GAIN and not even_demand.lacking(memory):
        return Decision(even, "even (no other would be much faster)", even_time, even_time)
    why = "by speed"
    if choice.limited:
        why += ", less for " + ", ".join(f"node {node}" for node in choice.limited) + " by its memory"
    return Decision(choice.partition, f"{choice.split} ({why})", expected, even_time)


def _measured(
    options: ClusterOptions,
    model: ModelSource,
    sync_type: FloatType,
    memory: Sequence[int] | None,
    table: KernelTable,
    report: Report,
) -> Partition:
    n_nodes, root_share = 1 + len(options.workers) + options.local_workers, options.split.root_share
    even = partition_evenly(
        model.header, n_nodes, root_share
    )  # refuses what cannot be, before anybody is asked
    report.info("calibrating", f"measuring {counted(n_nodes, 'node')}")
    speed = measure_cluster(options, model, even, sync_type, memory, table, report)
    report_measured(report, options, speed)
    decision = decide_by_speed(model.header, sync_type, speed, memory, root_share)
    report_split(report, decision.split, decision.partition)
    report_expected(report, decision.expected, decision.even)
    return decision.partition
