"""What a run took, for people and for machines."""

from __future__ import annotations

from typing import Any

from dllama_worker.report import format_bytes
from dllama_worker.root.inference import Timing
from dllama_worker.root.session import RootSession

__all__ = ["node_figures", "timing_figures", "write_summary"]


def timing_figures(timing: Timing) -> dict[str, float]:
    """Return a timing as JSON has it: tokens, seconds, tokens per second."""
    return {
        "tokens": timing.n_tokens,
        "op_seconds": round(timing.op_seconds, 6),
        "sync_seconds": round(timing.sync_seconds, 6),
        "tokens_per_second": round(timing.n_tokens / timing.seconds, 3) if timing.seconds else 0.0,
    }


def node_figures(session: RootSession, total: Timing) -> list[dict[str, Any]]:
    """Return one entry a node: what the root moved to and from it, and where known, what it did.

    Only workers that the root started itself tell where their time went; call this after the session's
    stop, when they have ended.
    """
    root = {"node": 0, "address": "root", **timing_figures(total)}
    nodes: list[dict[str, Any]] = [root]
    n_remote = len(session.cluster.addresses) - len(session.local_workers.addresses)
    told = session.local_workers.figures()
    for node, link in session.cluster.links.items():
        entry: dict[str, Any] = {"node": node, "address": str(session.cluster.addresses[node - 1])}
        if node > n_remote:
            entry |= told[node - 1 - n_remote]
        entry |= {"sent_bytes": link.received_bytes, "received_bytes": link.sent_bytes}
        nodes.append(entry)
    root["sent_bytes"] = sum(entry["received_bytes"] for entry in nodes[1:])
    root["received_bytes"] = sum(entry["sent_bytes"] for entry in nodes[1:])
    return nodes


def write_summary(evaluation: Timing, prediction: Timing, nodes: list[dict[str, Any]]) -> str:
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
    return "\n".join(lines)


def _phase(name: str, timing: Timing) -> str:
    if not timing.n_tokens or not timing.seconds:
        return f"{name}: nothing"
    rate = timing.n_tokens / timing.seconds
    return (
        f"{name}: {timing.n_tokens} tokens, {rate:.2f} tokens/s ({1000 / rate:.2f} ms/token), "
        f"sync {100 * timing.sync_seconds / timing.seconds:.0f} %"
    )
