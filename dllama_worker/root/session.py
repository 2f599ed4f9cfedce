"""From options to a cluster that is ready to infer: files, partition, layout, nodes; and the end of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dllama_ops.table import KernelTable
from dllama_proto.enums import FloatType
from dllama_worker import timeouts
from dllama_worker.errors import UsageError
from dllama_worker.model.source import ModelSource
from dllama_worker.node.kernels import choose_kernels, tell_compute
from dllama_worker.node.memory import check_memory, memory_limit, memory_need
from dllama_worker.node.tls import load_tls
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.cluster_setup import ClusterSetup
from dllama_worker.root.decide import decide_partition
from dllama_worker.root.inference import Inference
from dllama_worker.root.layout import Layout, build_layout, sync_type_of
from dllama_worker.root.local_workers import LocalWorkers
from dllama_worker.root.model_files import open_model_files
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.planning.split_report import report_even_split, report_model
from dllama_worker.root.preconditions import check_workers
from dllama_worker.root.reconnect import reconnector
from dllama_worker.sharding.partition import Partition
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["RootSession", "SessionPlan", "open_session", "plan_session"]


@dataclass(slots=True)
class RootSession:
    """A cluster with its weights loaded. ``load_seconds`` is what that took, connecting included."""

    inference: Inference
    tokenizer: Tokenizer
    model: ModelSource
    cluster: Cluster
    local_workers: LocalWorkers
    load_seconds: float
    report: Report


#: What refuses a request by the tokenizer and the length of the context.
RequestCheck = Callable[[Tokenizer, int], None]


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """All that is known before the session's cluster is connected: what is computed, with what, and where."""

    model: ModelSource
    tokenizer: Tokenizer
    table: KernelTable
    partition: Partition
    layout: Layout


@contextmanager
def open_session(
    options: ClusterOptions, report: Report, check: RequestCheck | None = None
) -> Iterator[RootSession]:
    """Set a session up, and end it: every worker is told, every local one ended, whatever happens.

    ``check`` may refuse what the session is for, before a worker is called.

    Raises UsageError, PeerLost, MachineError, ConfigRejected, and RemoteProtocolError where something else
    than a worker answers.
    """
    started = time.perf_counter()
    plan = plan_session(options, report, check)
    header = plan.model.header
    report_model(report, plan.model)
    if plan.partition.is_even:  # of others it was told when they were decided
        report_even_split(report, plan.partition)
    with ExitStack() as stack:
        tracer = _open_trace(options, report, stack)
        local = stack.enter_context(_local_workers(options, plan.model))
        # C++ workers do not listen for a moment after they have been measured.
        patience = max(options.wait, timeouts.LISTEN_AGAIN if options.split.auto else 0.0)
        tls = None if options.tls is None else load_tls(options.tls)
        addresses = (*options.workers, *local.addresses)
        cluster = Cluster(addresses, patience=patience, report=report, tls=tls)
        stack.callback(cluster.close)
        setup = ClusterSetup(options, plan.model, plan.partition, plan.layout, cluster, report)
        root = setup.start(plan.table, tracer)
        inference = Inference(
            root,
            cluster,
            vocab_size=header.vocab_size,
            seq_len=header.seq_len,
            reconnect=reconnector(options.reconnect, cluster.close, lambda: setup.restart(root), report),
            weights_are_local=not options.stream_weights,
        )
        yield RootSession(
            inference, plan.tokenizer, plan.model, cluster, local, time.perf_counter() - started, report
        )


def plan_session(options: ClusterOptions, report: Report, check: RequestCheck | None = None) -> SessionPlan:
    """Read the files and decide who computes what; only ``--split auto`` connects for that, to measure.

    Raises UsageError for what cannot be, MachineError where the root's own part does not fit into memory.
    """
    if options.reconnect and options.local_workers:
        raise UsageError(
            "--reconnect goes with --workers: local ones serve one session and are not started again"
        )
    check_workers(options.workers)
    if options.tls is not None:
        load_tls(options.tls)  # what is wrong with the files is told before anything is started
    model, tokenizer = open_model_files(options, report)
    if check is not None:
        check(tokenizer, model.header.seq_len)
    table = choose_kernels(options.kernels, report)
    tell_compute(table, options.n_threads, report)
    sync_type = _sync_type(options, model)
    partition = decide_partition(options, model, sync_type, table, report)
    layout = build_layout(model.header, partition, sync_type)
    check_memory(memory_need(layout.net, layout.nodes[0]), memory_limit(None))
    return SessionPlan(model, tokenizer, table, partition, layout)


def _sync_type(options: ClusterOptions, model: ModelSource) -> FloatType:
    if options.buffer_float_type is not None:
        return FloatType[options.buffer_float_type.upper()]
    return sync_type_of(model.header.weight_float_type)


def _open_trace(options: ClusterOptions, report: Report, stack: ExitStack) -> Tracer | None:
    if options.trace is None:
        return None
    tracer = Tracer(options.trace, report)
    stack.callback(tracer.close)
    return tracer


def _local_workers(options: ClusterOptions, model: ModelSource) -> LocalWorkers:
    return LocalWorkers(
        options.local_workers,
        n_threads=options.n_threads,
        kernels=options.kernels,
        tls=options.tls,
        model=None if options.stream_weights else model.path,
    )
