"""Weights on their way into kernels: whose they are, whether all of them came.

Pieces come from a socket (a worker fed by its root) or from a local model file; kernels take both. Every
byte of every weight must arrive once before the first forward.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping

from dllama_ops.kernel import BoundOp
from dllama_proto.bounded_text import FirstFew
from dllama_worker.errors import WeightMismatch
from dllama_worker.node.preparation import Check, checked, unhurried

__all__ = ["WeightLoading"]

#: Gaps that may be open at once in all weights together. Roots send a weight from its start to its end, or the
#: matrices of its experts in any order; a million scattered bytes would cost more to remember than the weight.
_MAX_GAPS = 65_536
_TAKING = "take the weight of"


class WeightLoading:
    """What of a bound node's weights has arrived; ``total`` bytes are expected."""

    def __init__(self, weighted: Mapping[tuple[str, int], BoundOp]) -> None:
        self._weighted = weighted
        #: By op, what has arrived: apart from each other, in order.
        self._arrived: dict[tuple[str, int], list[tuple[int, int]]] = {key: [] for key in weighted}
        self._n_parts = 0
        self._n_bytes = 0
        self.total = sum(op.context.weight.n_bytes for op in weighted.values() if op.context.weight)

    @property
    def n_bytes(self) -> int:
        """How many bytes have arrived."""
        return self._n_bytes

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has arrived yet although something is expected."""
        return self.n_bytes == 0 and self.total > 0

    def view(self, name: str, index: int, offset: int, n_bytes: int) -> memoryview | None:
        """Return the kernel's memory for a piece, to be filled in place; None where it wants a copy."""
        op = self._weighted[name, index]
        with op.blame(_TAKING):
            return op.kernel.weight_view(offset, n_bytes)

    def load(self, name: str, index: int, offset: int, data: memoryview) -> None:
        """Hand a piece over and count it. Raises WeightMismatch as :meth:`arrived` does."""
        self.arrived(name, index, offset, len(data))
        op = self._weighted[name, index]
        with op.blame(_TAKING):
            op.kernel.load_weight(offset, data)

    def arrived(self, name: str, index: int, offset: int, n_bytes: int) -> None:
        """Count a piece that was filled in place.

        Raises WeightMismatch where some of it has come before, or everything lies too scattered.
        """
        if not n_bytes:
            return
        parts = self._arrived[name, index]
        start, stop = offset, offset + n_bytes
        at = len(parts)
        if parts and parts[-1][1] > start:
            at = bisect(parts, (start, stop))
        before = parts[at - 1] if at else None
        after = parts[at] if at < len(parts) else None
        if (before and before[1] > start) or (after and after[0] < stop):
            raise WeightMismatch(
                f"{name} of layer {index}: bytes {start} to {stop} were sent, some of them for the second time"
            )
        first, last = at, at
        if before and before[1] == start:
            first, start = at - 1, before[0]
        if after and after[0] == stop:
            last, stop = at + 1, after[1]
        parts[first:last] = [(start, stop)]
        self._n_bytes += n_bytes
        self._n_parts += 1 - (last - first)
        if self._n_parts > len(self._arrived) + _MAX_GAPS:
            raise WeightMismatch(
                f"{name} of layer {index}: weights come in more than {_MAX_GAPS} scattered parts; "
                "expected each from its start to its end"
            )

    def finish(self, segments: tuple[tuple[BoundOp, ...], ...], check: Check = unhurried) -> None:
        """Make sure that nothing is missing and let every kernel finish; ``check`` is called between two.

        Raises WeightMismatch.
        """
        missing = FirstFew(text for key in self._weighted for text in self._missing(key))
        if len(missing):
            raise WeightMismatch(f"weights ended, but bytes are missing: {missing.joined('; ')}")
        for segment in segments:
            for op in checked(segment, check):
                with op.blame("finish the weight of"):
                    op.kernel.finish_weight()

    def _missing(self, key: tuple[str, int]) -> Iterator[str]:
        weight = self._weighted[key].context.weight
        end = weight.n_bytes if weight else 0
        name, index = key
        at = 0
        for start, stop in [*self._arrived[key], (end, end)]:
            if start > at:
                yield f"{name} of layer {index}: bytes {at} to {start} of {end}"
            at = max(at, stop)
