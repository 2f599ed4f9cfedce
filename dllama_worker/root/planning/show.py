"""A plan for people, as tables, and for machines, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dllama_proto.formatting import counted, format_bytes
from dllama_proto.terminal import Styled, Table, Terminal
from dllama_worker.root.planning.estimate import TokenTime
from dllama_worker.root.planning.options import PlanOptions
from dllama_worker.root.planning.plan import Plan

__all__ = ["plan_document", "print_plan"]

_COLUMNS = (
    "node",
    "query heads",
    "KV heads",
    "hidden",
    "weights",
    "buffers",
    "KV cache",
    "memory",
    "compute",
)

#: The style of what does not fit.
_ALARM = "red"


def plan_document(plan: Plan, options: PlanOptions) -> dict[str, Any]:
    """Return everything as JSON has it; sizes in bytes, times in seconds."""
    header = plan.header
    return {
        "model": options.model,
        "weight_float_type": header.weight_float_type.name.lower(),
        "sync_float_type": plan.sync_type.name.lower(),
        "seq_len": header.seq_len,
        "n_nodes": plan.partition.n_nodes,
        "split": plan.split,
        "same_as_cpp_root": plan.partition.is_even,
        "nodes": list(_nodes(plan, options)),
        "link": {
            "name": options.link.name,
            "bits_per_second": options.link.bits_per_second,
            "latency": options.link.latency,
            "shared": options.link.is_shared,
        },
        "link_bytes_per_token": {name.replace(" ", "_"): n for name, n in plan.demand.links().items()},
        "token": {"at_beginning": _token(plan.first), "at_end_of_context": _token(plan.last)},
        "possible_nodes": list(plan.possible),
        "cpp_root_nodes": list(plan.cpp),
        "impossible": plan.obstacle,
    }


def _nodes(plan: Plan, options: PlanOptions) -> Iterator[dict[str, Any]]:
    for node, (share, need) in enumerate(zip(plan.partition.shares, plan.demand.nodes, strict=True)):
        yield {
            "node": node,
            "query_heads": [share.q_heads.start, share.q_heads.stop],
            "key_value_heads": [share.kv_heads.start, share.kv_heads.stop],
            "hidden": [share.hidden.start, share.hidden.stop],
            "vocab": [share.vocab.start, share.vocab.stop],
            "weights": need.weights,
            "buffers": need.buffers,
            "kv_cache": need.kv_cache,
            "pipes": need.pipes,
            "memory_needed": need.memory,
            "memory": None if plan.memory is None else plan.memory[node],
            "fits": node not in plan.lacking,
            "bytes_per_second": options.speeds[node],
            "compute_seconds": plan.node_seconds[node],
        }


def _token(time: TokenTime) -> dict[str, float]:
    return {
        "compute_seconds": time.compute,
        "sync_seconds": time.sync,
        "tokens_per_second": time.tokens_per_second,
    }


def print_plan(plan: Plan, options: PlanOptions, terminal: Terminal) -> None:
    """Print the table of nodes, and around it what holds for all of them, a line each."""
    terminal.line(_headline(plan, options))
    terminal.table(_table(plan, options))
    for line in (*_exchange(plan, options), *_outlook(plan)):
        terminal.line(line)
    if plan.lacking:
        lacking = ", ".join(f"node {node}" for node in plan.lacking)
        terminal.line(Styled(f"does not fit: {lacking}", _ALARM))


def _headline(plan: Plan, options: PlanOptions) -> str:
    header = plan.header
    return (
        f"{options.model}: {header.weight_float_type.name.lower()} weights, context {header.seq_len}, "
        f"{counted(plan.partition.n_nodes, 'node')}, split {plan.split}"
        + (" (what the C++ root does)" if plan.partition.is_even else "")
    )


def _table(plan: Plan, options: PlanOptions) -> Table:
    """Return what each node holds and computes, a row a node; what is too large is marked."""
    table = Table(*_COLUMNS, right=_COLUMNS)
    for entry in _nodes(plan, options):
        memory: str | Styled = format_bytes(entry["memory_needed"])
        if not entry["fits"]:
            memory = Styled(f"{memory} of {format_bytes(entry['memory'])}", _ALARM)
        table.add(
            "root" if entry["node"] == 0 else str(entry["node"]),
            _range(entry["query_heads"]),
            _range(entry["key_value_heads"]),
            _range(entry["hidden"]),
            format_bytes(entry["weights"]),
            format_bytes(entry["buffers"] + entry["pipes"]),
            format_bytes(entry["kv_cache"]),
            memory,
            f"{1000 * entry['compute_seconds']:.1f} ms",
        )
    return table


def _exchange(plan: Plan, options: PlanOptions) -> Iterator[str]:
    """Yield what goes over each kind of link, and how fast the links are."""
    for name, n in plan.demand.links().items():
        yield f"{name}: {format_bytes(n)} a token"
    link = options.link
    shared = ", shared by all" if link.is_shared else ""
    rate = f"{link.bits_per_second / 1e6:g} Mbit/s"
    yield f"link {link.name}: {rate}{shared}, latency {1000 * link.latency:g} ms"


def _outlook(plan: Plan) -> Iterator[str]:
    """Yield the speed to expect, and which other numbers of nodes could share the model."""
    yield f"first token: {plan.first}"
    yield f"at position {plan.header.seq_len - 1}: {plan.last}"
    cpp = ", ".join(map(str, plan.cpp))
    yield f"possible with equal weights: {_counts(plan.possible)} (as the C++ root splits: {cpp})"
    if plan.obstacle:
        yield f"not possible: {plan.obstacle}"


def _range(ends: list[int]) -> str:
    start, stop = ends
    return f"{start}-{stop - 1}" if stop > start else "none"


def _counts(counts: tuple[int, ...]) -> str:
    if counts == (1,):
        return "1 node"
    if counts == tuple(range(1, len(counts) + 1)):
        return f"1 to {len(counts)} nodes"
    return ", ".join(map(str, counts)) + " nodes"
