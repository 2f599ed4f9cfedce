"""From options to a cluster that is ready to infer: files, layout, connections, weights; and the end of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dllama_proto.enums import FloatType
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.errors import UsageError
from dllama_worker.model.reader import ModelFile, open_model
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.memory import check_memory, memory_limit, memory_need
from dllama_worker.node.node import Node
from dllama_worker.node.tracing import Tracer
from dllama_worker.report import Report, format_bytes
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.decide import decide_partition
from dllama_worker.root.inference import Inference
from dllama_worker.root.layout import build_layout, sync_type_of
from dllama_worker.root.local_workers import LocalWorkers
from dllama_worker.root.options import RootOptions
from dllama_worker.root.reconnect import reconnector
from dllama_worker.root.streaming import count_weight_bytes, load_weights
from dllama_worker.root.tokenizer import Tokenizer, load_tokenizer
from dllama_worker.sharding.partition import Partition
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces

__all__ = ["RootSession", "open_session"]

_SYNC_TYPES = {"f32": FloatType.F32, "q80": FloatType.Q80}


@dataclass(slots=True)
class RootSession:
    """A cluster with its weights loaded. ``load_seconds`` is what that took, connecting included."""

    inference: Inference
    tokenizer: Tokenizer
    model: ModelFile
    cluster: Cluster
    local_workers: LocalWorkers
    load_seconds: float


@contextmanager
def open_session(options: RootOptions, report: Report) -> Iterator[RootSession]:
    """Set a session up, and end it: every worker is told, every local one ended, whatever happens.

    Raises UsageError, PeerLost, MachineError, ConfigRejected, and RemoteProtocolError where something else
    than a worker answers.
    """
    started = time.perf_counter()
    if options.reconnect and options.local_workers:
        raise UsageError(
            "--reconnect goes with --workers: local ones serve one session and are not started again"
        )
    model, tokenizer = _open_files(options, report)
    table = choose_kernels(options.kernels, report)
    sync_type = _sync_type(options, model)
    partition = decide_partition(options, model, sync_type, table, report)
    layout = build_layout(model.header, partition, sync_type)
    check_memory(memory_need(layout.net, layout.nodes[0]), memory_limit(None))
    with ExitStack() as stack:
        tracer = None
        if options.trace is not None:
            tracer = Tracer(options.trace)
            stack.callback(tracer.close)
        local = stack.enter_context(
            LocalWorkers(
                options.local_workers,
                n_threads=options.n_threads,
                kernels=options.kernels,
                model=None if options.stream_weights else model.path,
            )
        )
        cluster = Cluster((*options.workers, *local.addresses), patient=options.split.auto)
        stack.callback(cluster.close)
        cluster.connect()
        cluster.configure(layout.net, layout.nodes)
        root = Node(layout.net, layout.nodes[0], cluster.links, table, options.n_threads)
        _load(options, model, partition, root, cluster, report)
        root.ready(report, tracer)
        _bound_waiting(cluster, options)

        def set_up_again() -> None:
            cluster.connect()
            cluster.configure(layout.net, layout.nodes)
            _load(options, model, partition, None, cluster, report)
            root.relink(cluster.links)
            _bound_waiting(cluster, options)

        header = model.header
        inference = Inference(
            root,
            cluster,
            vocab_size=header.vocab_size,
            seq_len=header.seq_len,
            reconnect=reconnector(options.reconnect, cluster.close, set_up_again, report),
        )
        yield RootSession(inference, tokenizer, model, cluster, local, time.perf_counter() - started)


def _open_files(options: RootOptions, report: Report) -> tuple[ModelFile, Tokenizer]:
    model_path, tokenizer_path = options.model, options.tokenizer
    if model_path is None or tokenizer_path is None:
        model_path, tokenizer_path = Path(MODEL_PATH), Path(TOKENIZER_PATH)
        report.info("demo_model", "no --model: using the small demo model that comes with this package")
    model = open_model(model_path, options.max_seq_len)
    tokenizer = load_tokenizer(tokenizer_path)
    if tokenizer.vocab_size != model.header.vocab_size:
        report.warning(
            "vocab_size",
            f"{tokenizer_path} has {tokenizer.vocab_size} tokens, {model_path} has {model.header.vocab_size}: "
            "do they belong together?",
        )
    return model, tokenizer


def _sync_type(options: RootOptions, model: ModelFile) -> FloatType:
    if options.buffer_float_type is not None:
        return _SYNC_TYPES[options.buffer_float_type]
    return sync_type_of(model.header.weight_float_type)


def _bound_waiting(cluster: Cluster, options: RootOptions) -> None:
    for link in cluster.links.values():
        link.set_stall_timeout(options.sync_timeout or None)


def _load(
    options: RootOptions,
    model: ModelFile,
    partition: Partition,
    root: Node | None,
    cluster: Cluster,
    report: Report,
) -> None:
    """Load the workers and the root, unless it is None: then it has its weights already."""
    nodes = [0] if root is not None else []
    if options.stream_weights:
        nodes += range(1, partition.n_nodes)

    def pieces(node: int) -> Iterable[WeightPiece]:
        return node_weight_pieces(model.header, partition, node) if node in nodes else ()

    total = count_weight_bytes(model, partition, nodes)
    started = time.perf_counter()
    with report.progress("weights", "weights", total) as advance:
        load_weights(model, pieces, root, cluster, advance=advance)
    seconds = time.perf_counter() - started
    report.info(
        "weights_loaded",
        f"weights loaded: {format_bytes(total)} for {partition.n_nodes} nodes in {seconds:.1f} s",
        bytes=total,
        seconds=round(seconds, 3),
    )
