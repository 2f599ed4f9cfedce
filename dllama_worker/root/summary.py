"""What a run took, for people and for machines."""

from __future__ import annotations

from typing import Any

from dllama_proto.formatting import counted, format_bytes
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.session import RootSession

__all__ = ["node_figures", "times_figures", "write_summary"]


def times_figures(times: ForwardTimes) -> dict[str, float]:
    """Return times as JSON has them: tokens, seconds, tokens per second."""
    return {
        "tokens": times.rows,
        "op_seconds": round(times.op_seconds, 6),
        "sync_seconds": round(times.sync_seconds, 6),
        "tokens_per_second": round(times.rows_per_second, 3),
    }


def node_figures(session: RootSession, total: ForwardTimes) -> list[dict[str, Any]]:
    """Return one entry a node: what the root moved to and from it, and where known, what it did.

    Only workers that the root started itself tell where their time went; call this after the session's
    stop, when they have ended.
    """
    root = {"node": 0, "address": "root", **times_figures(total)}
    nodes: list[dict[str, Any]] = [root]
    n_remote = len(session.cluster.addresses) - len(session.local_workers.addresses)
    told = session.local_workers.times()
    for node, link in session.cluster.links.items():
        entry: dict[str, Any] = {"node": node, "address": str(session.cluster.addresses[node - 1])}
        if node > n_remote:
            entry |= _worker_figures(told[node - 1 - n_remote])
        entry |= {"sent_bytes": link.received_bytes, "received_bytes": link.sent_bytes}
        nodes.append(entry)
    root["sent_bytes"] = sum(entry["received_bytes"] for entry in nodes[1:])
    root["received_bytes"] = sum(entry["sent_bytes"] for entry in nodes[1:])
    return nodes


def _worker_figures(times: ForwardTimes) -> dict[str, float]:
    """Return what a worker told of itself; nothing of one that told nothing."""
    if not times.forwards:
        return {}
    return {"tokens": times.rows, "op_seconds": times.op_seconds, "sync_seconds": times.sync_seconds}


def write_summary(
    evaluation: ForwardTimes, prediction: ForwardTimes, nodes: list[dict[str, Any]]
) -> list[str]:
    """Return the summary as lines of text."""
    lines = [_phase("Evaluation", evaluation), _phase("Prediction", prediction)]
    lines.append(f"{'node':<26}{'ops':>9}{'sync':>9}{'to root':>12}{'from root':>12}")
    for entry in nodes:
        ops, sync = (
            f"{entry[name]:.2f} s" if name in entry else "-" for name in ("op_seconds", "sync_seconds")
        )
        name = f"{entry['node']} ({entry['address']})"
        sent, received = (
            ("", "")
            if entry["node"] == 0
            else (
                format_bytes(entry["sent_bytes"]),
                format_bytes(entry["received_bytes"]),
            )
        )
        lines.append(f"{name:<26}{ops:>9}{sync:>9}{sent:>12}{received:>12}".rstrip())
    return lines


def _phase(name: str, times: ForwardTimes) -> str:
    rate = times.rows_per_second
    if not rate:
        return f"{name}: nothing"
    return (
        f"{name}: {counted(times.rows, 'token')}, {rate:.2f} tokens/s ({1000 / rate:.2f} ms/token), "
        f"sync {100 * times.sync_seconds / times.seconds:.0f} %"
    )
