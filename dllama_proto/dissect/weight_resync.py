"""Going on after the header of a weight was not captured: over data, until a header or the end of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from dllama_proto.dissect.account import Account
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


class WeightResync:
    """Goes over data of weights until it is clear what comes next; ``weights`` are those of the node."""

    def __init__(
        self, root: Half, worker: Half, weights: Mapping[WeightKey, int], account: Account
    ) -> None:
        self._root = root
        self._worker = worker
        self._account = account
        self._search = WeightSearch(weights, DEFAULT_LIMITS)
        #: Where the data that is gone over begins.
        self._start: int | None = None
        #: When what was looked at last was captured.
        self._looked = 0

    def look(self, half: Half) -> Outcome:
        """Look at what has come on either half."""
        root = self._root
        if self._has_all_weights():
            # What came last is the end of the weights, captured or not.
            kept, is_end = self._search.end()
            self._go_on_with(kept[-len(WEIGHTS_END_BYTES) :] if is_end else b"")
            return Outcome.FOUND if is_end else Outcome.END_MISSING
        if half is self._worker:
            return Outcome.WAITS
        if root.gap:
            self._search.end()
            self.break_off()
            root.pass_gap(root.gap, UNKNOWN_WEIGHTS)
            return Outcome.MOVED
        if not root.ready:
            return Outcome.WAITS
        if self._start is None:
            self._start = root.offset
        self._looked, view = root.take_chunk()
        found = self._search.look(view)
        if found is None:
            return Outcome.MOVED
        self._go_on_with(found)
        return Outcome.FOUND

    def break_off(self) -> None:
        """Report the data that was gone over."""
        start, self._start = self._start, None
        root = self._root
        if start is not None and root.offset > start:
            self._account.unexplained(root.time, root.stream, start, root.offset - start, UNKNOWN_WEIGHTS)

    def _has_all_weights(self) -> bool:
        """Tell whether the worker has said that it has all weights, and the root has sent nothing else since."""
        root, worker = self._root, self._worker
        if worker.ready < len(ACK_BYTES) or root.gap:
            return False
        # What the root says later is no weight; nor is there one on its way, if nothing waits behind a gap.
        return worker.first_time < root.first_time if root.pending else not root.direction.has_more

    def _go_on_with(self, rest: bytes) -> None:
        """Leave ``rest``, which was taken last, to be read as a message."""
        if rest:
            self._root.put_back(self._looked, memoryview(rest))
        self.break_off()
