"""One forward: every segment's ops, then its syncs, in order, with the time each took (C++ ``NnExecutor``)."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from dllama_ops.kernel import CompiledSegment, ProfiledSegment
from dllama_worker.node.profile import SegmentTimes

__all__ = ["Executor", "Synchronizer"]


class Synchronizer(Protocol):
    """Exchanges a segment's pipes with the other nodes."""

    def sync(self, segment_index: int, batch_size: int) -> None:
        """Run the segment's syncs for the first ``batch_size`` rows. Raises PeerLost."""


class Executor:
    """Runs a bound node. ``op_seconds`` and ``sync_seconds`` tell where the last forward's time went."""

    def __init__(self, segments: Sequence[CompiledSegment | None], synchronizer: Synchronizer) -> None:
        """Take one entry for each segment of the config, None for those that only sync."""
        self._segments = tuple(segments)
        self._profiles = tuple(
            segment.profile if isinstance(segment, ProfiledSegment) else None for segment in self._segments
        )
        self._synchronizer = synchronizer
        self.op_seconds = 0.0
        self.sync_seconds = 0.0

    def forward(self, batch_size: int) -> None:
        """Evaluate the first ``batch_size`` rows. Raises PeerLost, and what kernels raise on bad data."""
        op_seconds = sync_seconds = 0.0
        before = perf_counter()
        for index, segment in enumerate(self._segments):
            if segment is not None:
                segment.forward(batch_size)
            computed = perf_counter()
            self._synchronizer.sync(index, batch_size)
            after = perf_counter()
            op_seconds += computed - before
            sync_seconds += after - computed
            before = after
        self.op_seconds = op_seconds
        self.sync_seconds = sync_seconds

    def profile(self, batch_size: int) -> list[SegmentTimes]:
        """Evaluate as :meth:`forward` does; return where the time went, op by op in segments that can tell."""
        times = []
        for index, (segment, profile) in enumerate(zip(self._segments, self._profiles, strict=True)):
            before = perf_counter()
            ops: Sequence[float] = ()
            if profile is not None:
                ops = profile(batch_size)
            elif segment is not None:
                segment.forward(batch_size)
                ops = (perf_counter() - before,)
            computed = perf_counter()
            self._synchronizer.sync(index, batch_size)
            times.append(SegmentTimes(ops, perf_counter() - computed))
        self.op_seconds = sum(sum(time.ops) for time in times)
        self.sync_seconds = sum(time.syncs for time in times)
        return times
