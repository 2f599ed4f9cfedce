"""Which partition a session gets: the one that was asked for, or one that is measured for.

Whatever cannot be is refused here, before any connection; only ``--split auto`` connects, to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

from dllama_ops.table import KernelTable
from dllama_proto.enums import FloatType
from dllama_worker.errors import UsageError
from dllama_worker.model.reader import ModelFile
from dllama_worker.report import Report, format_bytes
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.local_workers import LocalWorkers
from dllama_worker.root.options import RootOptions
from dllama_worker.root.planning.calibrate import SyncTimes, measure_pace, measure_syncs
from dllama_worker.root.planning.choose import check_fit, choose_partition, fits
from dllama_worker.root.planning.demand import Demand, count_demand
from dllama_worker.root.planning.estimate import NodeSpeed, TokenTime, estimate
from dllama_worker.sharding.apportion import partition_evenly, partition_for
from dllama_worker.sharding.partition import Partition

__all__ = ["decide_partition"]

#: Measured speeds of equal machines differ a little: an even split stays unless it takes so much longer.
_WORTH_IT = 1.03

#: Weights to measure a node with: more than caches hold, if links bring them in so many seconds.
_UPLOAD_SECONDS = 3.0
_MIN_BYTES, _MAX_BYTES = 16 << 20, 256 << 20

_T = TypeVar("_T")


def decide_partition(
    options: RootOptions, model: ModelFile, sync_type: FloatType, table: KernelTable, report: Report
) -> Partition:
    """Return the partition of a session, having said what it is unless it is the C++ root's.

    Raises UsageError where there is none, PeerLost and the like where measuring fails.
    """
    n_nodes = 1 + len(options.workers) + options.local_workers
    memory = _memory_of_each(options, n_nodes)
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
        _tell(report, str(options.split), partition)
    return partition


def _memory_of_each(options: RootOptions, n_nodes: int) -> tuple[int, ...] | None:
    memory = options.memory
    if memory is None:
        return None
    if len(memory) not in (1, n_nodes):
        raise UsageError(f"--memory has {len(memory)} values, expected 1 or {n_nodes}, one for each node")
    return memory * n_nodes if len(memory) == 1 else memory


def _measured(
    options: RootOptions,
    model: ModelFile,
    sync_type: FloatType,
    memory: Sequence[int] | None,
    table: KernelTable,
    report: Report,
) -> Partition:
    header, root_share = model.header, options.split.root_share
    n_nodes = 1 + len(options.workers) + options.local_workers
    even = partition_evenly(header, n_nodes, root_share)  # refuses what cannot be before anybody is asked
    report.info("calibrating", f"measuring {n_nodes} nodes")
    started = perf_counter()
    syncs = _with_cluster(options, lambda cluster: measure_syncs(model, even, sync_type, cluster, table))
    max_bytes = _probe_bytes(syncs, n_nodes, memory)
    speeds = _with_cluster(
        options,
        lambda cluster: measure_pace(
            model,
            sync_type,
            cluster,
            table,
            options.n_threads,
            max_bytes=max_bytes,
            root_works=root_share > 0,
        ),
    )
    _tell_measured(report, options, speeds, syncs, perf_counter() - started)
    weights = [speed.bytes_per_second for speed in speeds]
    weights[0] *= root_share
    choice = choose_partition(header, sync_type, weights, memory)
    even_demand = count_demand(header, even, sync_type)
    expected, otherwise = (_expect(demand, speeds, syncs) for demand in (choice.demand, even_demand))
    if otherwise.seconds < expected.seconds * _WORTH_IT and fits(even_demand, memory):
        _tell(report, "even (no other would be much faster)", even)
        _tell_expected(report, otherwise, otherwise)
        return even
    why = "by speed"
    if choice.limited:
        why += ", less for " + ", ".join(f"node {node}" for node in choice.limited) + " by its memory"
    _tell(report, f"{choice.split} ({why})", choice.partition)
    _tell_expected(report, expected, otherwise)
    return choice.partition


def _with_cluster(options: RootOptions, measure: Callable[[Cluster], _T]) -> _T:
    """Measure on a cluster of its own: local workers end with their session, remote ones listen again."""
    with LocalWorkers(options.local_workers, n_threads=options.n_threads, kernels=options.kernels) as local:
        return measure(Cluster((*options.workers, *local.addresses), patient=True))


def _probe_bytes(syncs: SyncTimes, n_nodes: int, memory: Sequence[int] | None) -> int:
    """Return the bytes to measure each node with: as much as links take in a few seconds."""
    affordable = int(syncs.bytes_per_second * _UPLOAD_SECONDS / (n_nodes - 1))
    most = min(max(affordable, _MIN_BYTES), _MAX_BYTES)
    return most if memory is None else min(most, min(memory) // 2)


def _expect(demand: Demand, speeds: Sequence[NodeSpeed], syncs: SyncTimes) -> TokenTime:
    return estimate(demand.nodes, speeds, syncs.of_segments(len(demand.syncs)))


def _tell_measured(
    report: Report, options: RootOptions, speeds: Sequence[NodeSpeed], syncs: SyncTimes, seconds: float
) -> None:
    names = ["root", *(f"node {i} ({address})" for i, address in enumerate(options.workers, start=1))]
    names += [f"node {len(names) + i} (local)" for i in range(options.local_workers)]
    rates = [speed.bytes_per_second for speed in speeds]
    facts = ", ".join(f"{name} {format_bytes(rate)}/s" for name, rate in zip(names, rates, strict=True))
    report.info(
        "calibrated",
        f"measured in {seconds:.1f} s: weights are read by {facts}; a sync takes {1000 * syncs.layer:.2f} ms",
        bytes_per_second=[round(rate) for rate in rates],
        op_seconds=[speed.op_seconds for speed in speeds],
        layer_sync_seconds=syncs.layer,
        last_sync_seconds=syncs.last,
        seconds=round(seconds, 3),
    )


def _tell_expected(report: Report, expected: TokenTime, even: TokenTime) -> None:
    report.info(
        "expected",
        f"expected: {expected.tokens_per_second:.2f} tokens/s ({1000 * expected.compute:.1f} ms computing, "
        f"{1000 * expected.sync:.1f} ms in syncs); with an even split {even.tokens_per_second:.2f}",
        tokens_per_second=round(expected.tokens_per_second, 3),
        even_tokens_per_second=round(even.tokens_per_second, 3),
        compute_seconds=round(expected.compute, 6),
        sync_seconds=round(expected.sync, 6),
    )


def _tell(report: Report, split: str, partition: Partition) -> None:
    counts = {
        "query heads": [len(share.q_heads) for share in partition.shares],
        "key-value heads": [len(share.kv_heads) for share in partition.shares],
        "feed-forward columns": [len(share.hidden) for share in partition.shares],
    }
    facts = ", ".join(f"{name} {':'.join(map(str, parts))}" for name, parts in counts.items())
    report.info(
        "split",
        f"split {split}: {facts}",
        split=split,
        query_heads=counts["query heads"],
        key_value_heads=counts["key-value heads"],
        feed_forward_columns=counts["feed-forward columns"],
    )
