"""Where a forward's time goes, by op code and kind of sync, without a clock in the hot path.

One forward of each stage a second is profiled: the same kernels compute the same numbers in the same plan, and
the clock is read around each op. Until the next one, the seconds of every forward, which are always measured, are
taken to divide as that one's did. Sums over op codes are therefore exact, the parts are estimates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dllama_ops.kernel import BoundOp
from dllama_proto.messages import NodeConfig

__all__ = [
    "ForwardProfile",
    "ProfileSchedule",
    "SAMPLE_INTERVAL",
    "SegmentTimes",
    "make_profile",
    "stage_of",
]

#: Seconds from one profiled forward of a stage to the next. One takes some 0.1 ms longer than others (reading
#: clocks, adding up), so at this pace even tiny models lose less than a thousandth of their time.
SAMPLE_INTERVAL = 1.0

#: The op code of segments whose plugin runs them whole and does not say where the time went.
_WHOLE_SEGMENT = "SEGMENT"


def stage_of(batch_size: int) -> str:
    """Return what kind of forward one with so many rows is."""
    return "decode" if batch_size == 1 else "prefill"


@dataclass(frozen=True, slots=True)
class SegmentTimes:
    """Seconds of one segment in one forward; ``ops`` is one number where it cannot tell its ops apart."""

    ops: Sequence[float]
    syncs: float


@dataclass(frozen=True, slots=True)
class ForwardProfile:
    """Shares of a forward's op seconds, by op code, and of its sync seconds, by sync type; each sums to 1."""

    ops: Mapping[str, float]
    syncs: Mapping[str, float]


def make_profile(
    segments: Sequence[Sequence[BoundOp]], config: NodeConfig, times: Sequence[SegmentTimes]
) -> ForwardProfile:
    """Add up what the segments of a forward took; syncs of different types in one segment are counted together."""
    ops: list[tuple[str, float]] = []
    syncs: list[tuple[str, float]] = []
    for bound, segment, taken in zip(segments, config.segments, times, strict=True):
        if len(taken.ops) == len(bound):
            ops += [
                (op.context.key.code.name, seconds) for op, seconds in zip(bound, taken.ops, strict=True)
            ]
        else:
            ops.append((_WHOLE_SEGMENT, sum(taken.ops)))
        if segment.syncs:
            names = dict.fromkeys(sync.sync_type.name for sync in segment.syncs)
            syncs.append(("+".join(names), taken.syncs))
    return ForwardProfile(_shares(ops), _shares(syncs))


def _shares(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in parts:
        sums[name] = sums.get(name, 0.0) + seconds
    total = sum(sums.values())
    return {name: seconds / total for name, seconds in sums.items()} if total else {}


class ProfileSchedule:
    """Chooses the forwards to profile: the first of each stage, then one every ``interval`` seconds."""

    def __init__(
        self, interval: float = SAMPLE_INTERVAL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}

    def is_due(self, stage: str) -> bool:
        """Tell whether the forward that begins is to be profiled; if so, the next interval begins."""
        now = self._clock()
        if now < self._next.get(stage, now):
            return False
        self._next[stage] = now + self._interval
        return True
