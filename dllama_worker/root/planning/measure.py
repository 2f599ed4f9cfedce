"""Measures the nodes of a session before it begins, on clusters that exist only for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from dllama_ops.table import KernelTable
from dllama_proto.enums import FloatType
from dllama_worker import timeouts
from dllama_worker.model.source import ModelSource
from dllama_worker.node.tls import load_tls
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.local_workers import LocalWorkers
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.planning.calibrate import SyncTimes, measure_pace, measure_syncs
from dllama_worker.root.planning.demand import Demand
from dllama_worker.root.planning.estimate import NodeSpeed, TokenTime, estimate
from dllama_worker.sharding.partition import Partition

__all__ = ["ClusterSpeed", "measure_cluster", "probe_bytes"]

#: Weights to measure a node with: what its link brings in these seconds, and within these bounds, which are larger
#: than caches.
_UPLOAD_SECONDS = 3.0
_MIN_BYTES, _MAX_BYTES = 16 << 20, 256 << 20

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ClusterSpeed:
    """What was measured: every node, the root first, and the syncs; ``seconds`` is what measuring took."""

    nodes: tuple[NodeSpeed, ...]
    syncs: SyncTimes
    seconds: float

    def estimate(self, demand: Demand) -> TokenTime:
        """Return what a token will take on these nodes if each has its part of ``demand``."""
        return estimate(demand.nodes, self.nodes, self.syncs.of_segments(len(demand.syncs)))


def measure_cluster(
    options: ClusterOptions,
    model: ModelSource,
    partition: Partition,
    sync_type: FloatType,
    memory: Sequence[int] | None,
    table: KernelTable,
    report: Report | None = None,
) -> ClusterSpeed:
    """Measure all nodes that the options name; of the partition only the number of nodes matters.

    Raises PeerLost and what else ends sessions.
    """
    started = perf_counter()
    syncs = _on_a_cluster(
        options, report, lambda cluster: measure_syncs(model, partition, sync_type, cluster, table)
    )
    max_bytes = probe_bytes(syncs.bytes_per_second, partition.n_nodes, memory)
    nodes = _on_a_cluster(
        options,
        report,
        lambda cluster: measure_pace(
            model,
            sync_type,
            cluster,
            table,
            options.n_threads,
            max_bytes=max_bytes,
            root_works=options.split.root_share > 0,
        ),
    )
    return ClusterSpeed(nodes, syncs, perf_counter() - started)


def probe_bytes(bytes_per_second: float, n_nodes: int, memory: Sequence[int] | None = None) -> int:
    """Return how many bytes of weights to measure each node with.

    As many as the root's link, at ``bytes_per_second``, takes to all workers in a few seconds, and no more than
    half the memory of any node.
    """
    affordable = int(bytes_per_second * _UPLOAD_SECONDS / (n_nodes - 1))
    wanted = min(max(affordable, _MIN_BYTES), _MAX_BYTES)
    return wanted if memory is None else min(wanted, min(memory) // 2)


def _on_a_cluster(options: ClusterOptions, report: Report | None, measure: Callable[[Cluster], _T]) -> _T:
    """Measure on a cluster of its own: local workers end with their session, remote ones listen again."""
    with LocalWorkers(
        options.local_workers, n_threads=options.n_threads, kernels=options.kernels, tls=options.tls
    ) as local:
        patience = max(options.wait, timeouts.LISTEN_AGAIN)
        addresses = (*options.workers, *local.addresses)
        tls = None if options.tls is None else load_tls(options.tls)
        return measure(Cluster(addresses, patience=patience, report=report, tls=tls))
