"""From a layout to workers that are ready, step by step: connect, configure, load; and the same again later.

A cluster is set up once with a root that has nothing yet, and again, after a worker was lost, for a root that
keeps its weights. The steps are the same; which of them the root itself takes part in is what differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from dllama_ops.table import KernelTable
from dllama_proto.formatting import counted, format_bytes
from dllama_worker.model.source import ModelSource
from dllama_worker.node.memory import memory_limit
from dllama_worker.node.node import Node
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.layout import Layout
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.streaming import count_weight_bytes, load_weights
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces

__all__ = ["ClusterSetup"]


class ClusterSetup:
    """What every node of a session is given: its part of the layout, and its part of the model's weights."""

    def __init__(
        self,
        options: ClusterOptions,
        model: ModelSource,
        partition: Partition,
        layout: Layout,
        cluster: Cluster,
        report: Report,
    ) -> None:
        self._options = options
        self._model = model
        self._partition = partition
        self._layout = layout
        self._cluster = cluster
        self._report = report

    def start(self, table: KernelTable, tracer: Tracer | None) -> Node:
        """Set everybody up, the root too; return the root, ready to compute.

        Raises PeerLost, RemoteProtocolError, ConfigRejected, MachineError.
        """
        self._connect()
        net, config = self._layout.net, self._layout.nodes[0]
        root = Node(
            net, config, self._cluster.links, table, self._options.n_threads, limit=memory_limit(None)
        )
        self._load(root)
        root.ready(self._report, tracer)
        self._bound_waiting()
        return root

    def restart(self, root: Node) -> None:
        """Set the workers up once more, over new connections; the root keeps its weights.

        The cluster must have been closed. Raises PeerLost, RemoteProtocolError.
        """
        self._connect()
        self._load(None)
        root.relink(self._cluster.links)
        self._bound_waiting()

    def _connect(self) -> None:
        self._cluster.connect(self._tell_connected)
        self._cluster.configure(self._layout.net, self._layout.nodes)

    def _tell_connected(self, name: str) -> None:
        self._report.info("connected", f"connected to {name}")

    def _load(self, root: Node | None) -> None:
        """Load the workers, unless they have the model themselves, and the root, unless it is None."""
        nodes = [0] if root is not None else []
        if self._options.stream_weights:
            nodes += range(1, self._partition.n_nodes)

        def pieces(node: int) -> Iterable[WeightPiece]:
            return node_weight_pieces(self._model.header, self._partition, node) if node in nodes else ()

        total = count_weight_bytes(self._model, self._partition, nodes)
        started = time.perf_counter()
        with self._report.progress("weights", "weights", total) as advance:
            load_weights(self._model, pieces, root, self._cluster, advance=advance)
        seconds = time.perf_counter() - started
        self._report.info(
            "weights_loaded",
            f"weights loaded: {format_bytes(total)} for {counted(len(nodes), 'node')} in {seconds:.1f} s",
            bytes=total,
            seconds=round(seconds, 3),
        )

    def _bound_waiting(self) -> None:
        for link in self._cluster.links.values():
            link.set_stall_timeout(self._options.sync_timeout or None)
