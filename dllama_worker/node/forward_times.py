"""Forwards counted: how many, of how many rows, and how long ops and syncs took in them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ForwardTimes"]


@dataclass(slots=True)
class ForwardTimes:
    """The sums of some forwards of one node: seconds in ops, and in syncs, waiting for other nodes included.

    A row is a token at a position: prefill has several in a forward, decode one.
    """

    rows: int = 0
    forwards: int = 0
    op_seconds: float = 0.0
    sync_seconds: float = 0.0

    @classmethod
    def total(cls, *parts: ForwardTimes) -> ForwardTimes:
        """Return the sums of several."""
        total = cls()
        for part in parts:
            total.add(part.rows, part.op_seconds, part.sync_seconds, forwards=part.forwards)
        return total

    @property
    def seconds(self) -> float:
        """Ops and syncs together."""
        return self.op_seconds + self.sync_seconds

    @property
    def rows_per_second(self) -> float:
        """Rows for each second in ops and syncs; 0 before the first forward."""
        return self.rows / self.seconds if self.seconds else 0.0

    def add(self, rows: int, op_seconds: float, sync_seconds: float, *, forwards: int = 1) -> None:
        """Count a forward, or several at once."""
        self.rows += rows
        self.forwards += forwards
        self.op_seconds += op_seconds
        self.sync_seconds += sync_seconds
