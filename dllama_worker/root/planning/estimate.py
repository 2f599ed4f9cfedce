"""How long one token takes: the slowest node of every segment, then the segment's syncs.

The model behind it: a node reads its weights once a token, at a constant rate, and spends some time on
every op as well; a sync takes one latency, the time that the busiest port (or the shared channel) needs
for its bytes, and the processor's time for each message. docs/scaling.md compares it with measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_worker.root.planning.demand import NodeDemand, SegmentWork, SyncDemand
from dllama_worker.root.planning.links import LinkSpeed

__all__ = ["NodeSpeed", "TokenTime", "estimate", "sync_seconds"]


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """How fast a node is: bytes of weights a second, and seconds for every op as well."""

    bytes_per_second: float
    op_seconds: float = 2e-6

    def seconds(self, work: SegmentWork, position: int) -> float:
        """Return what a segment takes for a token at a position."""
        read = work.weight_bytes + work.position_bytes * position
        return read / self.bytes_per_second + work.n_ops * self.op_seconds


@dataclass(frozen=True, slots=True)
class TokenTime:
    """Where one token's time goes: ``compute`` is of the slowest node of each segment."""

    compute: float
    sync: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute + self.sync

    @property
    def tokens_per_second(self) -> float:
        """How many such tokens a second has."""
        return 1 / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.tokens_per_second:.2f} tokens/s ({1000 * self.compute:.1f} ms computing, "
            f"{1000 * self.sync:.1f} ms in syncs)"
        )


def estimate(
    demands: Sequence[NodeDemand],
    speeds: Sequence[NodeSpeed],
    sync_times: Sequence[float],
    position: int = 0,
) -> TokenTime:
    """Estimate a token at a position; ``sync_times`` is what the syncs of each segment take, in seconds."""
    by_segment = zip(*(demand.segments for demand in demands), strict=True)
    compute = sum(
        max(speed.seconds(work, position) for speed, work in zip(speeds, works, strict=True))
        for works in by_segment
    )
    return TokenTime(compute, sum(sync_times))


def sync_seconds(syncs: Sequence[SyncDemand], link: LinkSpeed) -> float:
    """Return what the syncs of one segment take over links of some speed."""
    return sum(_seconds(sync, link) for sync in syncs if sync.busiest_messages)


def _seconds(sync: SyncDemand, link: LinkSpeed) -> float:
    moved = sync.all_bytes if link.is_shared else sync.busiest_bytes
    return link.latency + 8 * moved / link.bits_per_second + sync.busiest_messages * link.message_seconds
