"""``dllama-model verify``: how far two models are from each other, tensor by tensor and in their logits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dllama_proto.exit_codes import ExitCode
from dllama_proto.floats import bytes_to_values
from dllama_proto.formatting import counted
from dllama_proto.model_file import TensorEntry
from dllama_proto.terminal import Table, Terminal
from dllama_worker.errors import UsageError
from dllama_worker.model.location import locate_model
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.cluster_setup import ClusterSetup
from dllama_worker.root.inference import Inference
from dllama_worker.root.layout import build_layout, sync_type_of
from dllama_worker.root.options import ClusterOptions
from dllama_worker.sharding.apportion import partition_evenly
from dllama_worker.sharding.slicing import TensorSlice

__all__ = ["verify_models"]

_SEED = 1
_PART_BYTES = 8 << 20


def verify_models(first: Path, second: Path, weights: OpenOptions, n_tokens: int) -> int:
    """Print the distance of each kind of tensor, and that of the logits of ``n_tokens`` tokens.

    Raises UsageError where the models can't be opened, or are not of one shape.
    """
    options = OpenOptions(max(n_tokens, 2), weights.weights, weights.logits)
    models = open_model(locate_model(first), options), open_model(locate_model(second), options)
    if _shape(models[0]) != _shape(models[1]):
        raise UsageError(f"{first} and {second} are not of one shape: there is nothing to compare")
    terminal = Terminal()
    _print_tensors(*models, terminal)
    _print_logits(*models, min(n_tokens, models[0].header.seq_len), terminal)
    return ExitCode.DONE


def _shape(model: ModelSource) -> list[tuple[str, int, int | None, int, int]]:
    return [(entry.name, entry.layer, entry.expert, entry.d, entry.n) for entry in model.tensors.values()]


# Tensors ----------------------------------------------------------------------------------------------


def _print_tensors(first: ModelSource, second: ModelSource, terminal: Terminal) -> None:
    """Print the root mean square of differences, relative to the first model's values."""
    distances: dict[str, list[float]] = defaultdict(list)
    worst: dict[str, tuple[float, str]] = {}
    for key, entry in first.tensors.items():
        distance = _distance(first, entry, second, second.tensors[key])
        distances[entry.name].append(distance)
        worst[entry.name] = max(worst.get(entry.name, (-1.0, "")), (distance, f"layer {entry.layer}"))
    table = Table("tensor", "mean", "most", "where", right=("mean", "most"))
    for name, found in distances.items():
        table.add(name, f"{np.mean(found):.3%}", f"{worst[name][0]:.3%}", worst[name][1])
    terminal.line(
        "distance of tensors (root mean square of differences, relative to the first model's values):"
    )
    terminal.table(table)


def _distance(first: ModelSource, entry: TensorEntry, second: ModelSource, other: TensorEntry) -> float:
    squares = differences = 0.0
    for one, two in zip(_values(first, entry), _values(second, other), strict=True):
        squares += float(np.square(one, dtype=np.float64).sum())
        differences += float(np.square(one.astype(np.float64) - two).sum())
    return (differences / squares) ** 0.5 if squares else float(differences > 0)


def _values(model: ModelSource, entry: TensorEntry) -> Iterator[npt.NDArray[np.float32]]:
    """Yield a tensor's values, the same rows at a time for any type."""
    n_rows = max(1, _PART_BYTES // (4 * entry.n))
    for start in range(0, entry.d, n_rows):
        rows = range(start, min(start + n_rows, entry.d))
        yield bytes_to_values(entry.float_type, TensorSlice.of_rows(entry, rows).data(model))
        model.release(entry, rows)


# Logits -----------------------------------------------------------------------------------------------


def _print_logits(first: ModelSource, second: ModelSource, n_tokens: int, terminal: Terminal) -> None:
    tokens = np.random.default_rng(_SEED).integers(0, first.header.vocab_size, n_tokens).tolist()
    one, two = _logits(first, tokens), _logits(second, tokens)
    p, q = _log_softmax(one), _log_softmax(two)
    divergence = (np.exp(p) * (p - q)).sum(axis=1)
    same = int((one.argmax(axis=1) == two.argmax(axis=1)).sum())
    terminal.line(f"logits of {counted(n_tokens, 'token')} taken by chance:")
    terminal.line(
        f"  largest difference {np.abs(one - two).max():.6g}, of logits up to {np.abs(one).max():.6g}"
    )
    terminal.line(f"  the same most likely token after {same} of {n_tokens}")
    terminal.line(
        f"  divergence (Kullback-Leibler) {divergence.mean():.6g} nats on average, {divergence.max():.6g} most"
    )


def _logits(model: ModelSource, tokens: list[int]) -> npt.NDArray[np.float64]:
    """Compute a model on this machine alone; return the logits after each token, [len(tokens)][vocab_size]."""
    options, report = ClusterOptions(), Report()
    partition = partition_evenly(model.header, 1)
    layout = build_layout(model.header, partition, sync_type_of(model.header.weight_float_type))
    with closing(Cluster([])) as cluster:
        root = ClusterSetup(options, model, partition, layout, cluster, report).start(
            choose_kernels("", report), None
        )
        inference = Inference(
            root, cluster, vocab_size=model.header.vocab_size, seq_len=model.header.seq_len
        )
        batches = [
            tokens[at : at + inference.n_batches] for at in range(0, len(tokens), inference.n_batches)
        ]
        return np.concatenate(
            [inference.forward(batch, ForwardTimes()).astype(np.float64) for batch in batches]
        )


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted: npt.NDArray[np.float64] = logits - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
