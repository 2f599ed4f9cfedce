"""What is logged about a split: the measurements, the share of each node, the speed to expect."""

from __future__ import annotations

from dllama_proto.formatting import counted, format_bytes
from dllama_worker.model.source import ModelSource
from dllama_worker.report import Report
from dllama_worker.root.options import ClusterOptions
from dllama_worker.root.planning.estimate import TokenTime
from dllama_worker.root.planning.measure import ClusterSpeed
from dllama_worker.sharding.partition import Partition

__all__ = ["report_even_split", "report_expected", "report_measured", "report_model", "report_split"]


def report_model(report: Report, model: ModelSource) -> None:
    """Tell what will be loaded, before that takes its time."""
    header = model.header
    experts = (
        f", {header.n_active_experts} of {counted(header.n_experts, 'expert')}" if header.is_moe else ""
    )
    report.info(
        "model",
        f"model {model.path.name}: {header.arch.name.lower()}, {counted(header.n_layers, 'layer')} of "
        f"{header.dim}{experts}, {header.weight_float_type.name.lower()}, {format_bytes(model.n_bytes)}, "
        f"context {header.seq_len} tokens",
        path=str(model.path),
        bytes=model.n_bytes,
        seq_len=header.seq_len,
    )
    if model.conversions:
        need = format_bytes(model.n_weight_bytes)
        report.info(
            "conversions", f"weights are loaded as {need}: {model.conversions}", bytes=model.n_weight_bytes
        )


def report_even_split(report: Report, partition: Partition) -> None:
    """Tell among how many nodes a model is split, where each gets the same."""
    n = partition.n_nodes
    who = "all on the root" if n == 1 else f"even, root and {counted(n - 1, 'worker')}"
    report.info("split", f"split: {who}", split="even", nodes=n)


def report_measured(report: Report, options: ClusterOptions, speed: ClusterSpeed) -> None:
    """Tell how fast each node is, by name."""
    names = ["root", *(f"node {i} ({address})" for i, address in enumerate(options.workers, start=1))]
    names += [f"node {len(names) + i} (local)" for i in range(options.local_workers)]
    rates = [node.bytes_per_second for node in speed.nodes]
    facts = ", ".join(f"{name} {format_bytes(rate)}/s" for name, rate in zip(names, rates, strict=True))
    report.info(
        "calibrated",
        f"measured in {speed.seconds:.1f} s: weights are read by {facts}; "
        f"a sync takes {1000 * speed.syncs.layer:.2f} ms",
        bytes_per_second=[round(rate) for rate in rates],
        op_seconds=[node.op_seconds for node in speed.nodes],
        layer_sync_seconds=speed.syncs.layer,
        last_sync_seconds=speed.syncs.last,
        seconds=round(speed.seconds, 3),
    )


def report_split(report: Report, split: str, partition: Partition) -> None:
    """Tell who gets how much; ``split`` is how it was asked for or chosen."""
    counts = {
        "query heads": [len(share.q_heads) for share in partition.shares],
        "key-value heads": [len(share.kv_heads) for share in partition.shares],
        "feed-forward columns": [len(share.hidden) for share in partition.shares],
    }
    facts = ", ".join(f"{name} {':'.join(map(str, parts))}" for name, parts in counts.items())
    fields = {name.replace(" ", "_").replace("-", "_"): parts for name, parts in counts.items()}
    report.info("split", f"split {split}: {facts}", split=split, **fields)


def report_expected(report: Report, expected: TokenTime, even: TokenTime) -> None:
    """Tell how fast a token will be, and how fast with an even split."""
    report.info(
        "expected",
        f"expected: {expected}; with an even split {even.tokens_per_second:.2f}",
        tokens_per_second=round(expected.tokens_per_second, 3),
        even_tokens_per_second=round(even.tokens_per_second, 3),
        compute_seconds=round(expected.compute, 6),
        sync_seconds=round(expected.sync, 6),
    )
