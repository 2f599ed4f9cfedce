"""Weights on their way into kernels: whose they are, whether all of them came.

Pieces come from a socket (a worker fed by its root) or from a local model file; kernels take both. Every
byte of every weight must arrive once before the first forward.
"""

from __future__ import annotations

from collections.abc import Mapping

from dllama_ops.kernel import BoundOp
from dllama_worker.errors import WeightMismatch

__all__ = ["WeightLoading"]


class WeightLoading:
    """What of a bound node's weights has arrived; ``total`` bytes are expected."""

    def __init__(self, weighted: Mapping[tuple[str, int], BoundOp]) -> None:
        self._weighted = weighted
        self._arrived: dict[tuple[str, int], list[tuple[int, int]]] = {key: [] for key in weighted}
        self.total = sum(op.context.weight.n_bytes for op in weighted.values() if op.context.weight)

    @property
    def n_bytes(self) -> int:
        """How many bytes have arrived."""
        return sum(stop - start for parts in self._arrived.values() for start, stop in parts)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has arrived yet although something is expected."""
        return self.n_bytes == 0 and self.total > 0

    def view(self, name: str, index: int, offset: int, n_bytes: int) -> memoryview | None:
        """Return the kernel's memory for a piece, to be filled in place; None where it wants a copy."""
        return self._weighted[name, index].kernel.weight_view(offset, n_bytes)

    def load(self, name: str, index: int, offset: int, data: memoryview) -> None:
        """Hand a piece over and count it."""
        self._weighted[name, index].kernel.load_weight(offset, data)
        self.arrived(name, index, offset, len(data))

    def arrived(self, name: str, index: int, offset: int, n_bytes: int) -> None:
        """Count a piece that was filled in place."""
        parts = self._arrived[name, index]
        if parts and parts[-1][1] == offset:
            parts[-1] = parts[-1][0], offset + n_bytes
        elif n_bytes:
            parts.append((offset, offset + n_bytes))

    def finish(self, segments: tuple[tuple[BoundOp, ...], ...]) -> None:
        """Make sure that nothing is missing and let every kernel finish. Raises WeightMismatch."""
        missing = [text for key in self._weighted for text in self._missing(key)]
        if missing:
            shown = "; ".join(missing[:5])
            more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise WeightMismatch(f"weights ended, but bytes are missing: {shown}{more}")
        for segment in segments:
            for op in segment:
                op.kernel.finish_weight()

    def _missing(self, key: tuple[str, int]) -> list[str]:
        weight = self._weighted[key].context.weight
        end = weight.n_bytes if weight else 0
        gaps, at = [], 0
        for start, stop in [*sorted(self._arrived[key]), (end, end)]:
            if start > at:
                gaps.append((at, start))
            at = max(at, stop)
        name, index = key
        return [f"{name} of layer {index}: bytes {start} to {stop} of {end}" for start, stop in gaps]
