"""Measures of a session: bytes of each link, times of each sync, who waited for whom, tokens per second.

Everything is added up while events pass by, so that a capture of any length can be summed up.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import ceil

from dllama_proto.dissect.events import (
    Forward,
    MessageEvent,
    Place,
    SliceEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.enums import SyncType
from dllama_proto.messages import ControlPacket, Refusal

__all__ = ["LinkSum", "NodeSum", "SessionSum", "Summary", "SyncKey", "SyncSum", "percentile"]

#: Segment and sync within it.
SyncKey = tuple[int, int]


def percentile(samples: array[int], part: float) -> int:
    """Return the sample below which ``part`` of all lie (nearest rank); 0 of none."""
    if not samples:
        return 0
    return sorted(samples)[max(0, ceil(part * len(samples)) - 1)]


@dataclass(slots=True)
class LinkSum:
    """What one node sent to another."""

    weights: int = 0
    slices: int = 0
    messages: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.slices + self.messages


@dataclass(slots=True)
class NodeSum:
    """One node: bytes, how its weights came, how others waited for it."""

    sent: int = 0
    received: int = 0
    weight_bytes: int = 0
    weights_began: int = 0
    weights_ended: int = 0
    #: Syncs in which others had to wait for this node, and how long in all.
    times_last: int = 0
    waited_ns: int = 0

    @property
    def weight_rate(self) -> float:
        """Bytes of weights per second, as they came."""
        span = self.weights_ended - self.weights_began
        return self.weight_bytes / span * 1e9 if span > 0 else 0.0


@dataclass(slots=True)
class SyncSum:
    """One sync of every forward: from the first byte that a node sends for it to the last."""

    place: Place
    pipe: str
    sync_type: SyncType
    n_slices: int = 0
    n_bytes: int = 0
    #: Of each forward.
    times: array[int] = field(default_factory=lambda: array("q"))
    #: Between the first node that sent and the last one.
    waits: array[int] = field(default_factory=lambda: array("q"))
    #: How often each node was the last to send.
    last: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class _OpenSync:
    began: int
    ended: int
    first: dict[int, int]


class SessionSum:
    """The measures of one session."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.links: dict[tuple[int, int], LinkSum] = defaultdict(LinkSum)
        self.nodes: dict[int, NodeSum] = defaultdict(NodeSum)
        self.syncs: dict[SyncKey, SyncSum] = {}
        #: What workers refused with, by node.
        self.refusals: dict[int, str] = {}
        self.n_forwards = 0
        self.began = self.ended = 0
        #: Rows and time of forwards with several rows, and of those with one.
        self.prefill_rows = self.prefill_ns = 0
        self.decode_rows = self.decode_ns = 0
        self._open: dict[SyncKey, _OpenSync] = {}
        self._forward: Forward | None = None
        self._forward_began = self._forward_ended = 0

    @property
    def prefill_rate(self) -> float:
        """Tokens per second of the prompt."""
        return self.prefill_rows / self.prefill_ns * 1e9 if self.prefill_ns else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens per second that were generated."""
        return self.decode_rows / self.decode_ns * 1e9 if self.decode_ns else 0.0

    def add(self, event: WireEvent) -> None:
        """Count one event of the session."""
        stream = event.stream
        if stream is None or stream.sender is None or stream.receiver is None:
            return
        self.began = min(self.began or event.began, event.began)
        self.ended = max(self.ended, event.time)
        link = self.links[stream.sender, stream.receiver]
        match event:
            case WeightEvent():
                captured = event.size - event.missing
                link.weights += captured
                node = self.nodes[stream.receiver]
                node.weight_bytes += event.data_size - event.missing
                node.weights_began = node.weights_began or event.began
                node.weights_ended = event.time
            case SliceEvent():
                captured = event.size - event.missing
                link.slices += captured
                self._slice(event, captured)
            case MessageEvent():
                captured = event.size
                link.messages += captured
                if isinstance(event.message, ControlPacket):
                    self._control(event)
                elif isinstance(event.message, Refusal):
                    self.refusals[stream.sender] = event.message.reason
            case _:
                return
        self.nodes[stream.sender].sent += captured
        self.nodes[stream.receiver].received += captured

    def finish(self) -> None:
        """Count the last forward."""
        self._end_forward()

    def _control(self, event: MessageEvent) -> None:
        # The first link to hear of a forward begins it; a stop ends the last one.
        if event.forward is None:
            self._end_forward()
        elif self._forward is None or event.forward.index > self._forward.index:
            self._end_forward()
            self._forward, self._forward_began = event.forward, event.began
            self._forward_ended = event.time
            self.n_forwards += 1

    def _slice(self, event: SliceEvent, captured: int) -> None:
        transfer = event.transfer
        key = (transfer.segment_index, transfer.sync_index)
        total = self.syncs.get(key)
        if total is None:
            total = self.syncs[key] = SyncSum(event.place, event.pipe, transfer.sync_type)
        total.n_slices += 1
        total.n_bytes += captured
        if self._forward is None or event.forward.index != self._forward.index:
            return
        self._forward_ended = max(self._forward_ended, event.time)
        current = self._open.get(key)
        if current is None:
            current = self._open[key] = _OpenSync(event.began, event.time, {})
        current.began = min(current.began, event.began)
        current.ended = max(current.ended, event.time)
        first = current.first.get(transfer.sender)
        current.first[transfer.sender] = event.began if first is None else min(first, event.began)

    def _end_forward(self) -> None:
        if self._forward is None:
            return
        for key, current in self._open.items():
            self._end_sync(self.syncs[key], current)
        self._open.clear()
        span = self._forward_ended - self._forward_began
        if self._forward.batch_size > 1:
            self.prefill_rows += self._forward.batch_size
            self.prefill_ns += span
        else:
            self.decode_rows += 1
            self.decode_ns += span
        self._forward = None

    def _end_sync(self, total: SyncSum, current: _OpenSync) -> None:
        total.times.append(current.ended - current.began)
        if len(current.first) < 2:
            return
        last = max(current.first, key=lambda node: current.first[node])
        wait = current.first[last] - min(current.first.values())
        total.waits.append(wait)
        total.last[last] += 1
        self.nodes[last].times_last += 1
        self.nodes[last].waited_ns += wait


class Summary:
    """The measures of every session of a capture."""

    def __init__(self) -> None:
        self.sessions: dict[int, SessionSum] = {}

    def add(self, event: WireEvent) -> None:
        """Count one event."""
        if event.stream is not None and event.stream.session is not None:
            number = event.stream.session
            session = self.sessions.get(number)
            if session is None:
                session = self.sessions[number] = SessionSum(number)
            session.add(event)

    def finish(self) -> None:
        """Count what is still under way."""
        for session in self.sessions.values():
            session.finish()
