"""Runs the probes on a cluster and works out how fast its nodes and syncs are."""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

from dllama_ops.table import KernelTable
from dllama_proto.enums import FloatType
from dllama_proto.floats import n_bytes
from dllama_proto.messages import ControlPacket, NetConfig, NodeConfig
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.model.source import ModelSource
from dllama_worker.node.channel import Channel
from dllama_worker.node.node import Node
from dllama_worker.node.sync import NetworkSynchronizer
from dllama_worker.node.transport import Link
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.planning.estimate import NodeSpeed
from dllama_worker.root.planning.probe import (
    N_MARKS,
    N_SMALL_OPS,
    N_SYNCS,
    PaceProbe,
    make_pace_probe,
    make_sync_probe,
)
from dllama_worker.root.streaming import load_weights
from dllama_worker.sharding.partition import Partition

__all__ = ["SyncTimes", "measure_pace", "measure_syncs"]

#: A node whose processor other programs use as well, or that is held to a part of it, goes fast and slow by
#: turns: the mean over this many seconds counts, not the best.
_PACE_SECONDS = 2.0
_SYNC_SECONDS = 1.0
_MIN_FORWARDS = 3
_MARK_BYTES = 4


@dataclass(frozen=True, slots=True)
class SyncTimes:
    """Seconds of a sync: ``layer`` of partial sums, of which a token needs two a layer, ``last`` of logits.

    ``bytes_per_second`` is how fast logits came to the root, latency included.
    """

    layer: float
    last: float
    bytes_per_second: float

    def of_segments(self, n_segments: int) -> list[float]:
        """Return what the syncs of each segment of a model take."""
        return [self.layer] * (n_segments - 1) + [self.last]


def measure_syncs(
    model: ModelSource,
    partition: Partition,
    sync_type: FloatType,
    cluster: Cluster,
    table: KernelTable,
) -> SyncTimes:
    """Measure the model's syncs; leaves the cluster closed.

    Of the partition only the number of nodes matters. Raises what sessions raise.
    """
    net, nodes = make_sync_probe(model.header, partition, sync_type)
    watches: list[_SyncWatch] = []

    def watch(*arguments: object) -> _SyncWatch:
        watches.append(_SyncWatch(*arguments))  # type: ignore[arg-type] # Node's own arguments
        return watches[-1]

    layers: list[float] = []
    lasts: list[float] = []
    try:
        cluster.connect()
        cluster.configure(net, nodes)
        root = Node(net, nodes[0], cluster.links, table, 1, watch)
        load_weights(model, lambda node: (), root, cluster, advance=lambda n: None)
        root.ready(Report())
        deadline = time.monotonic() + _SYNC_SECONDS
        while time.monotonic() < deadline or len(layers) <= _MIN_FORWARDS:
            watches[0].times.clear()
            cluster.command(0, 1)
            root.forward(0, 1)
            cluster.forward_done()
            met, *_, layer, last = watches[0].times
            layers.append((layer - met) / N_SYNCS)
            lasts.append(last - layer)
        cluster.stop(0)
    finally:
        cluster.close()
    # The first forward wakes everybody up.
    layer, last = sum(layers[1:]) / len(layers[1:]), sum(lasts[1:]) / len(lasts[1:])
    logits = n_bytes(FloatType.F32, sum(len(share.vocab) for share in partition.shares[1:]))
    return SyncTimes(layer, last, logits / last)


def measure_pace(
    model: ModelSource,
    sync_type: FloatType,
    cluster: Cluster,
    table: KernelTable,
    n_threads: int,
    *,
    max_bytes: int,
    root_works: bool,
) -> tuple[NodeSpeed, ...]:
    """Measure all nodes at the same time, as they will have to work; leaves the cluster closed.

    Every node is sent up to ``max_bytes`` of weights: what fits into its caches is read faster than a model
    will be. A root that will not work is taken to be as fast as the fastest worker. Raises what sessions
    raise.
    """
    probe = make_pace_probe(model.header, cluster.n_nodes, sync_type, max_bytes)
    watch = _Stopwatch()
    paces = {0: _Pace()}
    try:
        cluster.connect()
        cluster.configure(probe.net, probe.nodes)
        root = Node(probe.net, probe.nodes[0], cluster.links, table, n_threads, lambda *_: watch)
        load_weights(model, probe.weights, root, cluster, advance=lambda n: None)
        root.ready(Report())
        deadline = time.monotonic() + _PACE_SECONDS
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="paces") as pool:
            workers = pool.submit(_pace_workers, cluster, deadline)
            while root_works and (time.monotonic() < deadline or paces[0].n_forwards < _MIN_FORWARDS):
                watch.times.clear()
                root.forward(0, 1)
                paces[0].add(watch.times)
            paces |= workers.result()
        cluster.stop(0)
    finally:
        cluster.close()
    speeds = {node: _speed(pace, probe) for node, pace in paces.items() if pace.n_forwards}
    if 0 not in speeds:
        speeds[0] = max(speeds.values(), key=lambda speed: speed.bytes_per_second)
    return tuple(speeds[node] for node in range(cluster.n_nodes))


class _Stopwatch:
    """In the place of a synchronizer: exchanges nothing, notes the time after each segment."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def sync(self, segment_index: int, batch_size: int) -> None:
        self.times.append(perf_counter())


class _SyncWatch(NetworkSynchronizer):
    """Exchanges as usual, and notes the time after each segment."""

    def __init__(
        self,
        net: NetConfig,
        node: NodeConfig,
        pipes: Sequence[memoryview],
        links: Mapping[int, Link],
    ) -> None:
        super().__init__(net, node, pipes, links)
        self.times: list[float] = []

    def sync(self, segment_index: int, batch_size: int) -> None:
        super().sync(segment_index, batch_size)
        self.times.append(perf_counter())


@dataclass(slots=True)
class _Pace:
    """Seconds that one node spent on small ops and on matmuls, in ``n_forwards`` forwards."""

    n_forwards: int = 0
    small: float = 0.0
    matmuls: float = 0.0

    def add(self, marks: Sequence[float]) -> None:
        started, small_done, matmuls_done = marks
        self.n_forwards += 1
        self.small += small_done - started
        self.matmuls += matmuls_done - small_done


@dataclass(slots=True)
class _ProbedWorker:
    """A worker under measurement: how far its marks have come."""

    channel: Channel
    pace: _Pace = field(default_factory=_Pace)
    marks: list[float] = field(default_factory=list)
    missing: int = _MARK_BYTES
    is_warm: bool = False

    def command(self) -> None:
        """Let it begin a forward. Raises PeerLost."""
        self.channel.send(ControlPacket(0, 1))

    def receive(self) -> bool:
        """Receive some of a mark; return whether that ended a forward. Raises PeerLost."""
        data = self.channel.link.receive(self.missing)
        if not data:
            raise PeerLost(self.channel.link.name, "closed the connection while it was measured")
        self.missing -= len(data)
        if self.missing:
            return False
        self.marks.append(perf_counter())
        self.missing = _MARK_BYTES
        if len(self.marks) < N_MARKS:
            return False
        self.channel.slices_exchanged()
        if self.is_warm:  # the first forward reads its weights for the first time
            self.pace.add(self.marks)
        self.is_warm = True
        self.marks.clear()
        return True


def _pace_workers(cluster: Cluster, deadline: float) -> dict[int, _Pace]:
    """Keep every worker busy until ``deadline``, each at its own pace. Raises PeerLost."""
    workers = {node: _ProbedWorker(channel) for node, channel in cluster.channels.items()}
    with selectors.DefaultSelector() as selector:
        for worker in workers.values():
            selector.register(worker.channel.link, selectors.EVENT_READ, worker)
            worker.command()
        while selector.get_map():
            ready = selector.select(timeouts.PROBE)
            if not ready:
                late: _ProbedWorker = next(iter(selector.get_map().values())).data
                raise PeerLost(
                    late.channel.link.name, f"did not finish a probe within {timeouts.PROBE:.0f} s"
                )
            for key, _ in ready:
                worker = key.data
                if not worker.receive():
                    continue
                if time.monotonic() < deadline or worker.pace.n_forwards < _MIN_FORWARDS:
                    worker.command()
                else:
                    selector.unregister(key.fileobj)
    return {node: worker.pace for node, worker in workers.items()}


def _speed(pace: _Pace, probe: PaceProbe) -> NodeSpeed:
    op_seconds = pace.small / pace.n_forwards / N_SMALL_OPS
    matmuls = pace.matmuls / pace.n_forwards
    # What a matmul takes apart from reading is in there as well, but never all of it.
    reading = max(matmuls - probe.n_matmuls * op_seconds, matmuls / 4)
    return NodeSpeed(probe.n_matmuls * probe.matmul_bytes / reading, op_seconds)
