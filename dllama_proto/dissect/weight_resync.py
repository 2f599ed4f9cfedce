"""Going on after the header of a weight was not captured: over data, until a header or the end of the weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from dllama_proto.connection import Connection
from dllama_proto.dissect.account import Account, UnexplainedRun
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.weight_search import WeightSearch
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES
from dllama_proto.verify import WeightKey

__all__ = ["Outcome", "UNKNOWN_WEIGHTS", "WeightResync"]

#: Why data of weights means nothing.
UNKNOWN_WEIGHTS = "weights whose header was not captured"


class Outcome(Enum):
    """How far a look has come."""

    #: More must come.
    WAITS = auto()
    #: Something was gone over.
    MOVED = auto()
    #: A header, or the end of all weights, comes next.
    FOUND = auto()
    #: All weights were sent, and what says so was not captured.
    END_MISSING = auto()


class _Chunk(NamedTuple):
    """Bytes that were captured at once: when, and where in the stream."""

    time: int
    offset: int
    view: memoryview


class WeightResync:
    """Goes over data of weights until it is clear what comes next.

    ``half`` is the root's direction, ``weights`` are those of the node. What may be the beginning of a
    header, or the end of all weights, is held back; it is either put back, to be read, or counted as
    unexplained, never both.
    """

    def __init__(self, half: Half[Connection], weights: Mapping[WeightKey, int], account: Account) -> None:
        self._half = half
        self._search = WeightSearch(weights, DEFAULT_LIMITS)
        #: The last bytes that were taken: those that are held back.
        self._held: deque[_Chunk] = deque()
        #: Those before them.
        self._run = UnexplainedRun(account, half.stream)

    def look(self) -> Outcome:
        """Look at what has come, in either direction."""
        half = self._half
        if self._has_all_weights():
            # What came last is the end of the weights, captured or not.
            _, is_end = self._search.end()
            self._go_on_with(len(WEIGHTS_END_BYTES) if is_end else 0)
            return Outcome.FOUND if is_end else Outcome.END_MISSING
        if half.gap:
            self.break_off()
            half.pass_gap(half.gap, UNKNOWN_WEIGHTS)
            return Outcome.MOVED
        if not half.ready:
            return Outcome.WAITS
        offset = half.offset
        time, view = half.take_chunk()
        self._held.append(_Chunk(time, offset, view))
        found = self._search.look(view)
        if found is None:
            self._hold_back(self._search.n_kept)
            return Outcome.MOVED
        self._go_on_with(len(found))
        return Outcome.FOUND

    def break_off(self) -> None:
        """Report all that was gone over: what comes next does not follow it."""
        self._search.end()
        self._go_on_with(0)

    def _has_all_weights(self) -> bool:
        """Tell whether the worker has said that it has all weights, and the root has sent nothing else since."""
        root, worker = self._half, self._half.other
        if worker.ready < len(ACK_BYTES) or root.gap:
            return False
        # What the root says later is no weight; nor is there one on its way, if nothing waits behind a gap.
        return worker.first_time < root.first_time if root.pending else not root.direction.has_more

    def _go_on_with(self, n: int) -> None:
        """Report what was gone over, but leave the last ``n`` bytes of it to be read as a message."""
        self._hold_back(n)
        while self._held:
            chunk = self._held.pop()
            self._half.put_back(chunk.time, chunk.view)
        self._run.end(UNKNOWN_WEIGHTS)

    def _hold_back(self, n: int) -> None:
        """Count as unexplained all that was taken but the last ``n`` bytes."""
        end = self._half.offset - n
        while self._held and self._held[0].offset < end:
            time, offset, view = self._held.popleft()
            surplus = min(len(view), end - offset)
            self._run.add(time, offset, surplus)
            if surplus < len(view):
                self._held.appendleft(_Chunk(time, end, view[surplus:]))
