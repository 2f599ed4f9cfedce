"""A configured node, worker or root alike: memory, kernels and syncs put together, ready to be fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dllama_ops.kernel import BoundOp, CompiledSegment
from dllama_ops.segments import compile_segment, guarded
from dllama_ops.table import KernelTable
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_worker.node.binding import plan_node
from dllama_worker.node.executor import Executor, Synchronizer
from dllama_worker.node.memory import NodeMemory, check_memory, memory_need
from dllama_worker.node.prefault import prefault_weights
from dllama_worker.node.preparation import Check, checked, unhurried
from dllama_worker.node.profile import ForwardProfile, make_profile
from dllama_worker.node.sync import NetworkSynchronizer
from dllama_worker.node.tracing import Tracer
from dllama_worker.node.transport import Link
from dllama_worker.node.weight_loading import WeightLoading
from dllama_worker.report import Report

__all__ = ["Node"]

SynchronizerFactory = Callable[
    [NetConfig, NodeConfig, Sequence[memoryview], Mapping[int, Link]], Synchronizer
]


class Node:
    """One node of a cluster: give it its weights, call :meth:`ready`, then :meth:`forward` batch by batch.

    When made it counts what it will take before it takes it: first what the configs say, then, once the ops are
    verified, what their kernels state. ``need`` is all of it, ``limit`` how much it may be; None for any amount.
    ``check`` is called between two ops; what it raises ends the work. Raises ConfigRejected or MachineError.
    """

    def __init__(
        self,
        net: NetConfig,
        config: NodeConfig,
        links: Mapping[int, Link],
        table: KernelTable,
        n_threads: int,
        make_synchronizer: SynchronizerFactory = NetworkSynchronizer,
        limit: int | None = None,
        check: Check = unhurried,
    ) -> None:
        self.net = net
        self.config = config
        need = memory_need(net, config)
        check_memory(need, limit)
        self.memory = NodeMemory(net, config)
        planned = plan_node(net, config, self.memory, table, n_threads, check)
        self.need = replace(need, kernels=planned.kernel_memory())
        check_memory(self.need, limit)
        self.bound = planned.make_kernels()
        self._scope = planned.scope
        self.weights = WeightLoading(self.bound.weighted)
        prefault_weights(op.kernel for op in self.bound.weighted.values())
        self._table = table
        self._n_threads = n_threads
        self._make_synchronizer = make_synchronizer
        self._synchronizer = make_synchronizer(net, config, self.memory.pipe_bytes, links)
        self._segments: list[CompiledSegment | None] = []
        self._tracer: Tracer | None = None
        self._positions = [self.memory.pipes[sync.pipe_index].data for sync in net.pre_syncs]
        self._row_numbers = np.arange(net.n_batches, dtype=np.float32)
        self.executor: Executor | None = None

    def ready(self, report: Report, tracer: Tracer | None = None, check: Check = unhurried) -> None:
        """All weights are in: let kernels finish them and plugins take segments whole.

        With a tracer, which wants to see every op, none are taken whole. ``check`` is called between two ops.
        Raises WeightMismatch where bytes are missing.
        """
        self.weights.finish(self.bound.segments, check)
        self._tracer = tracer
        if tracer is None:
            self._segments = [
                self._compile(ops, report) if ops else None for ops in checked(self.bound.segments, check)
            ]
            check()
        self._start()

    def relink(self, links: Mapping[int, Link]) -> None:
        """Go on over other links, with the weights that are there: the other nodes have been connected anew."""
        self._synchronizer = self._make_synchronizer(self.net, self.config, self.memory.pipe_bytes, links)
        self._start()

    def _compile(self, ops: tuple[BoundOp, ...], report: Report) -> CompiledSegment:
        choice = compile_segment(self._table.compilers, ops, self._n_threads)
        for failure in choice.failures:
            report.warning("plugin_fault", str(failure))
        return guarded(choice, ops)

    def _start(self) -> None:
        if self._tracer is None:
            self.executor = Executor(self._segments, self._synchronizer)
            return
        watched = self._tracer.watch(self.net, self.config, self.bound.segments, self._synchronizer)
        self.executor = Executor(*watched)

    def forward(self, position: int, batch_size: int) -> None:
        """Evaluate rows at ``position`` and on (C++ ``tryReadControlPacket``, ``NnExecutor::forward``).

        Raises ForwardStopped after :meth:`stop`, and what kernels and syncs raise.
        """
        self._prepare(position, batch_size).forward(batch_size)

    def profile(self, position: int, batch_size: int) -> ForwardProfile:
        """Evaluate as :meth:`forward` does; return where the time went."""
        times = self._prepare(position, batch_size).profile(batch_size)
        return make_profile(self.bound.segments, self.config, times)

    def stop(self) -> None:
        """End the forward that runs between two ops, and let no other begin. Safe from any thread."""
        self._scope.stop()

    def _prepare(self, position: int, batch_size: int) -> Executor:
        if self.executor is None:
            raise RuntimeError("forward needs weights: call ready first")
        for rows in self._positions:
            np.add(self._row_numbers[:batch_size], position, out=rows[0, :batch_size, 0])
        return self.executor
