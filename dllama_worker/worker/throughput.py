"""How fast a node is: rows evaluated, where the time went, bytes on the wire."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dllama_proto.formatting import counted, format_bytes
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.node.transport import Link
from dllama_worker.report import Report

__all__ = ["Throughput"]


class Throughput:
    """Adds up forwards and logs them when a request is over, not token by token.

    Where a root only measures its nodes (``is_measured``), forwards are no tokens, and not logged as such.
    """

    def __init__(self, links: Iterable[Link], *, is_measured: bool = False) -> None:
        self._is_measured = is_measured
        self._links = tuple(links)
        self._counts = ForwardTimes()
        self._sent, self._received = self._bytes()
        self._started = time.perf_counter()

    def _bytes(self) -> tuple[int, int]:
        return (
            sum(link.sent_bytes for link in self._links),
            sum(link.received_bytes for link in self._links),
        )

    def start(self) -> None:
        """A forward begins: the first one since the last report starts the clock."""
        if not self._counts.forwards:
            self._started = time.perf_counter()

    def add(self, rows: int, op_seconds: float, sync_seconds: float) -> None:
        """Count one forward."""
        self._counts.add(rows, op_seconds, sync_seconds)
        self._ended = time.perf_counter()

    def report(self, report: Report) -> None:
        """Log what was counted since the last time, if anything, and start over."""
        counts = self._counts
        if not counts.forwards:
            return
        seconds = max(self._ended - self._started, 1e-9)
        sent, received = self._bytes()
        new_sent, new_received = sent - self._sent, received - self._received
        moved = f"sent {format_bytes(new_sent)}, received {format_bytes(new_received)}"
        if self._is_measured:
            report.info(
                "measured",
                f"the root measured this node: {counts.forwards} steps in {seconds:.2f} s; {moved}",
                steps=counts.forwards,
                seconds=round(seconds, 6),
                sent_bytes=new_sent,
                received_bytes=new_received,
            )
            self._start_over(sent, received)
            return
        report.info(
            "evaluated",
            f"{counted(counts.rows, 'token')} in {counted(counts.forwards, 'step')}, "
            f"{counts.rows / seconds:.1f} tokens/s; "
            f"ops {counts.op_seconds:.2f} s, sync {counts.sync_seconds:.2f} s; "
            f"{moved}",
            tokens=counts.rows,
            steps=counts.forwards,
            tokens_per_second=round(counts.rows / seconds, 3),
            op_seconds=round(counts.op_seconds, 6),
            sync_seconds=round(counts.sync_seconds, 6),
            sent_bytes=new_sent,
            received_bytes=new_received,
        )
        self._start_over(sent, received)

    def _start_over(self, sent: int, received: int) -> None:
        self._counts = ForwardTimes()
        self._sent, self._received = sent, received
