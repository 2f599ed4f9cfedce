"""The slices of a link: sizes are known, so that missing bytes cost no more than the slice they are part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dllama_proto.dissect.account import NOTHING, Account
from dllama_proto.dissect.events import Forward, SliceEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.sync_plan import Transfer

__all__ = ["SliceDecoder"]

#: A slice larger than this is counted, not kept.
_MAX_SLICE = 64 * 1024 * 1024


@dataclass(slots=True)
class _Partial:
    """A slice that is taken piece by piece; ``began`` is when its first byte was captured."""

    transfer: Transfer
    row: int
    began: int
    size: int = 0
    missing: int = 0


class SliceDecoder:
    """Takes slices of one link, in both directions, forward after forward."""

    def __init__(self, session: SessionFacts, account: Account) -> None:
        self._session = session
        self._account = account
        #: Forwards that have begun on this link.
        self.n_forwards = 0
        self._forward: Forward | None = None
        #: Of each direction, the slice of which only parts could be taken.
        self._partial: dict[Half[Any], _Partial] = {}

    def begin(self, forward: Forward) -> None:
        """Learn whose slices follow."""
        self._forward = forward
        self.n_forwards += 1

    def step(self, half: Half[Any], transfer: Transfer, row: int, byte: int) -> bool:
        """Take a slice, or what there is of it from ``byte`` on; tell whether that was possible."""
        wanted = transfer.size - byte
        if half not in self._partial:
            if half.ready >= wanted:
                began = half.first_time
                time, raw = half.take(wanted)
                half.count_payload(wanted)
                self._report(half, _Partial(transfer, row, began, wanted), time, raw)
                return True
            if half.pending == half.ready and wanted <= _MAX_SLICE:
                return False
        if not half.pending:
            return False
        # A gap within the slice, or more of it than is kept: take it piece by piece.
        part = self._partial.setdefault(half, _Partial(transfer, row, half.first_time))
        n = min(wanted, half.ready or half.gap)
        if half.gap:
            half.pass_gap(n, f"{transfer}, row {row}")
            part.missing += n
        else:
            half.drop(n)
        half.count_payload(n)
        part.size += n
        if n == wanted:
            self.break_off(half)
        return True

    def break_off(self, half: Half[Any]) -> None:
        """Report a slice that was taken piece by piece, or of which only the beginning came."""
        part = self._partial.pop(half, None)
        if part is not None:
            self._report(half, part, half.time, NOTHING)
        elif half.ready and half.link.next_slice is not None:
            transfer, row, _ = half.link.next_slice
            began = half.first_time
            time, raw = half.take(min(half.ready, transfer.size))
            self._report(half, _Partial(transfer, row, began, len(raw)), time, raw)

    def _report(self, half: Half[Any], part: _Partial, time: int, raw: memoryview) -> None:
        if self._forward is None:
            raise RuntimeError("a slice outside of a forward: a bug of the phase table")
        transfer = part.transfer
        event = SliceEvent(
            time,
            part.began,
            half.stream,
            half.offset - part.size,
            part.size,
            raw,
            self._forward,
            transfer,
            part.row,
            self._session.pipe_name(transfer.pipe_index),
            self._session.place(transfer.segment_index),
            part.missing,
        )
        self._account.explained(event, part.size - part.missing)
