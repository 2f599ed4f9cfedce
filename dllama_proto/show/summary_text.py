"""The measures of a session as tables, and as JSON."""

from __future__ import annotations

from typing import Any, TextIO

from dllama_proto.formatting import counted, format_bytes, format_duration
from dllama_proto.show.json_form import FORMAT_VERSION, plain
from dllama_proto.show.summary import SessionSum, Summary, SyncSum, percentile
from dllama_proto.terminal import Styled, Table, Terminal

__all__ = ["print_summary", "summary_json"]


def print_summary(summary: Summary, file: TextIO) -> None:
    """Print the tables of every session."""
    terminal = Terminal(file)
    if not summary.sessions:
        terminal.line("no session of a cluster in this capture")
    for session in summary.sessions.values():
        terminal.line(
            Styled(f"session {session.number}", "bold"),
            f": {counted(session.n_forwards, 'forward')} in "
            f"{format_duration(session.ended - session.began)}{_rates(session)}",
        )
        for node, reason in sorted(session.refusals.items()):
            terminal.line(f"node {node} refused: {reason}")
        terminal.table(_nodes(session))
        terminal.table(_links(session))
        if session.syncs:
            terminal.table(_syncs(session))


def _rates(session: SessionSum) -> str:
    parts = []
    if session.prefill_rows:
        parts.append(
            f"prompt {session.prefill_rate:.1f} tokens/s ({counted(session.prefill_rows, 'token')})"
        )
    if session.decode_rows:
        parts.append(
            f"one by one {session.decode_rate:.1f} tokens/s ({counted(session.decode_rows, 'token')})"
        )
    return "".join(f", {part}" for part in parts)


def _table(title: str, left: int, *columns: str) -> Table:
    """Return a table; all but the first ``left`` columns are numbers."""
    return Table(*columns, title=title, right=columns[left:])


def _nodes(session: SessionSum) -> Table:
    table = _table("nodes", 1, "node", "sent", "received", "weights", "rate", "others waited", "in all")
    for number, node in sorted(session.nodes.items()):
        table.add(
            f"{number}{' (root)' if not number else ''}",
            format_bytes(node.sent),
            format_bytes(node.received),
            format_bytes(node.weight_bytes) if node.weight_bytes else "",
            f"{format_bytes(node.weight_rate)}/s" if node.weight_rate else "",
            f"{node.times_last}x" if node.times_last else "",
            format_duration(node.waited_ns) if node.times_last else "",
        )
    return table


def _links(session: SessionSum) -> Table:
    table = _table("links", 1, "from > to", "weights", "slices", "messages", "all")
    for (sender, receiver), link in sorted(session.links.items()):
        table.add(
            f"{sender} > {receiver}",
            *(format_bytes(n) for n in (link.weights, link.slices, link.messages, link.total)),
        )
    return table


def _syncs(session: SessionSum) -> Table:
    table = _table(
        "syncs",
        3,
        "where",
        "pipe",
        "who",
        "times",
        "bytes",
        "median",
        "p99",
        "wait",
        "wait p99",
        "last node",
    )
    for _, sync in sorted(session.syncs.items()):
        table.add(
            str(sync.place),
            sync.pipe,
            sync.sync_type.name.lower().replace("_", " "),
            str(len(sync.times)),
            format_bytes(sync.n_bytes),
            format_duration(percentile(sync.times, 0.5)),
            format_duration(percentile(sync.times, 0.99)),
            format_duration(percentile(sync.waits, 0.5)) if sync.waits else "",
            format_duration(percentile(sync.waits, 0.99)) if sync.waits else "",
            ", ".join(f"{node} ({count}x)" for node, count in sync.last.most_common(2)),
        )
    return table


def summary_json(summary: Summary) -> dict[str, Any]:
    """Return everything that the tables show; times in nanoseconds."""
    return {
        "version": FORMAT_VERSION,
        "kind": "summary",
        "sessions": [_session(session) for session in summary.sessions.values()],
    }


def _session(session: SessionSum) -> dict[str, Any]:
    return {
        "session": session.number,
        "forwards": session.n_forwards,
        "began_ns": session.began,
        "ended_ns": session.ended,
        "prefill": {"tokens": session.prefill_rows, "tokens_per_second": session.prefill_rate},
        "decode": {"tokens": session.decode_rows, "tokens_per_second": session.decode_rate},
        "refusals": [{"node": node, "reason": reason} for node, reason in sorted(session.refusals.items())],
        "nodes": [
            {"node": number, "weight_bytes_per_second": node.weight_rate} | plain(node)
            for number, node in sorted(session.nodes.items())
        ],
        "links": [
            {"sender": sender, "receiver": receiver, "total": link.total} | plain(link)
            for (sender, receiver), link in sorted(session.links.items())
        ],
        "syncs": [_sync(key, sync) for key, sync in sorted(session.syncs.items())],
    }


def _sync(key: tuple[int, int], sync: SyncSum) -> dict[str, Any]:
    return {
        "segment_index": key[0],
        "sync_index": key[1],
        "place": plain(sync.place),
        "pipe": sync.pipe,
        "sync_type": sync.sync_type.name,
        "slices": sync.n_slices,
        "bytes": sync.n_bytes,
        "forwards": len(sync.times),
        "median_ns": percentile(sync.times, 0.5),
        "p99_ns": percentile(sync.times, 0.99),
        "wait_median_ns": percentile(sync.waits, 0.5),
        "wait_p99_ns": percentile(sync.waits, 0.99),
        "last": {str(node): count for node, count in sorted(sync.last.items())},
    }
