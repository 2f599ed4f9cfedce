"""How far a payload has come: one piece of a weight, or the slices of one forward in one direction.

Payloads are counted, never parsed. A count suffices to name the byte that is missing, so the hot path only
adds, and the place in the plan is looked up when somebody asks for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from dllama_proto.bounded_text import quoted
from dllama_proto.messages import WeightHeader
from dllama_proto.sync_plan import Transfer

__all__ = ["SlicePayload", "SliceSchedule", "WeightPayload"]


class WeightPayload:
    """The bytes that a weight header announced; ``remaining`` of them are still to come."""

    def __init__(self, header: WeightHeader) -> None:
        self._header = header
        self.remaining = header.n_bytes

    @property
    def piece_remaining(self) -> int:
        """Bytes that complete the current piece of a weight."""
        return self.remaining

    @property
    def offset(self) -> int:
        """Where in the weight the next byte belongs."""
        return self._header.offset + self._header.n_bytes - self.remaining

    def advance(self, n: int) -> None:
        """Count ``n`` more bytes, at most ``remaining``."""
        self.remaining -= n

    def path(self) -> str:
        """Name the weight, and the byte of it that comes next."""
        return f"weight {quoted(self._header.name)} of index {self._header.op_index}, byte {self.offset}"


class SliceSchedule:
    """The slices that each forward moves over one link in one direction, in the order on the wire."""

    def __init__(self, transfers: Sequence[Transfer]) -> None:
        self.transfers = transfers
        #: Where each transfer ends, in bytes of a forward of one row.
        self.ends = list(accumulate(transfer.size for transfer in transfers))
        self.row_size = self.ends[-1] if self.ends else 0


class SlicePayload:
    """The slices of one forward over one link in one direction: transfer after transfer, row after row.

    ``remaining`` bytes of them are still to come.
    """

    def __init__(self, schedule: SliceSchedule, batch_size: int) -> None:
        self._schedule = schedule
        self._batch_size = batch_size
        self.remaining = schedule.row_size * batch_size

    def place(self) -> tuple[Transfer, int, int]:
        """Return the transfer and row of the next byte, and the byte within the slice.

        There must be one: ``remaining`` is not 0.
        """
        schedule, batch_size = self._schedule, self._batch_size
        done = schedule.row_size * batch_size - self.remaining
        index = bisect_right(schedule.ends, done // batch_size)
        transfer = schedule.transfers[index]
        row, byte = divmod(done - (schedule.ends[index] - transfer.size) * batch_size, transfer.size)
        return transfer, row, byte

    @property
    def piece_remaining(self) -> int:
        """Bytes that complete the current slice of one row."""
        if not self.remaining:
            return 0
        transfer, _, byte = self.place()
        return transfer.size - byte

    def advance(self, n: int) -> None:
        """Count ``n`` more bytes, at most ``remaining``."""
        self.remaining -= n

    def path(self) -> str:
        """Name the sync, the sender and the row."""
        if not self.remaining:
            return "Slices"
        transfer, row, _ = self.place()
        return f"{transfer}, row {row}"
