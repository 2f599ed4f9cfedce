"""``dllama-proto diff``: where two captured sessions part, and how far apart their numbers are.

Both captures are read side by side. What one node said to another is compared in its own order, so that it
does not matter how links were interleaved. What differs between any two sessions of the same model is no
difference: addresses, and memory that the C++ program leaves uninitialised.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TextIO

import numpy as np

from dllama_proto.dissect.dissection import Dissection, dissect_pcap
from dllama_proto.dissect.events import MessageEvent, Place, SliceEvent, WeightEvent, WireEvent
from dllama_proto.exit_codes import AMISS, ExitCode
from dllama_proto.formatting import counted
from dllama_proto.messages import Greeting, NodeConfig, OpConfig
from dllama_proto.schemas.op_configs import OPS
from dllama_proto.show.json_form import FORMAT_VERSION, plain
from dllama_proto.show.labels import describe
from dllama_proto.show.values import slice_values
from dllama_proto.terminal import Table, Terminal, print_json

__all__ = ["Difference", "Distance", "Divergence", "diff_captures", "run_diff"]

_Compared = MessageEvent | WeightEvent | SliceEvent
_LinkKey = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two things, said at the same point of the conversation, that are not the same."""

    sender: int
    receiver: int
    #: None where one capture has nothing more to say there.
    one: str | None
    other: str | None


@dataclass(slots=True)
class Distance:
    """How far the slices of one node in one sync are apart, over all forwards.

    Differences are parts of the largest magnitude in the first capture's slice.
    """

    segment_index: int
    sync_index: int
    place: Place
    pipe: str
    sender: int
    n_rows: int = 0
    n_differ: int = 0
    largest: float = 0.0
    total: float = 0.0
    #: Position of the first row that differs.
    first_position: int | None = None
    first_forward: int | None = None

    @property
    def mean(self) -> float:
        """Mean over rows of each row's largest difference."""
        return self.total / self.n_rows if self.n_rows else 0.0


@dataclass(frozen=True, slots=True)
class Divergence:
    """All that was found: messages first, then distances in the order of the model."""

    messages: tuple[Difference, ...]
    n_messages: int
    distances: tuple[Distance, ...]

    @property
    def first(self) -> Distance | None:
        """Where numbers part first: in the earliest forward, the earliest sync of it."""
        apart = [distance for distance in self.distances if distance.n_differ]
        return min(
            apart,
            key=lambda d: (d.first_forward or 0, d.segment_index, d.sync_index, -d.largest),
            default=None,
        )


class _Side:
    """One capture, read link by link."""

    def __init__(self, source: str) -> None:
        self.dissection: Dissection = dissect_pcap(source)
        self._events: Iterator[WireEvent] = iter(self.dissection)
        self.queues: dict[_LinkKey, deque[_Compared]] = defaultdict(deque)
        self.at_end = False

    def read(self) -> None:
        """Read on to the next event that can be compared."""
        for event in self._events:
            stream = event.stream
            if (
                isinstance(event, MessageEvent | WeightEvent | SliceEvent)
                and stream is not None
                and stream.session is not None
                and stream.sender is not None
                and stream.receiver is not None
            ):
                self.queues[stream.session, stream.sender, stream.receiver].append(event)
                return
        self.at_end = True

    def is_ahead(self, other: _Side) -> bool:
        """Tell whether more waits here than on the other side."""
        return sum(map(len, self.queues.values())) > sum(map(len, other.queues.values()))


def diff_captures(one: str, other: str, tolerance: float = 0.0) -> Divergence:
    """Compare two captures. Differences up to ``tolerance`` are none.

    Raises CaptureError and OSError where one cannot be read.
    """
    sides = _Side(one), _Side(other)
    comparison = _Comparison(sides[0].dissection, tolerance)
    while not (sides[0].at_end and sides[1].at_end):
        first, second = sides
        # Both are read at the same pace, so that little waits.
        if first.at_end or (not second.at_end and first.is_ahead(second)):
            first = second
        first.read()
        _compare_ready(sides, comparison)
    for key in sorted({*sides[0].queues, *sides[1].queues}):
        left, right = sides[0].queues[key], sides[1].queues[key]
        if left or right:
            comparison.rest(key, left[0] if left else None, right[0] if right else None)
    return comparison.result()


def _compare_ready(sides: tuple[_Side, _Side], comparison: _Comparison) -> None:
    for key, left in sides[0].queues.items():
        right = sides[1].queues.get(key)
        while left and right:
            comparison.pair(key, left.popleft(), right.popleft())


class _Comparison:
    def __init__(self, dissection: Dissection, tolerance: float) -> None:
        self._dissection = dissection
        self._tolerance = tolerance
        self._messages: list[tuple[int, Difference]] = []
        self._distances: dict[tuple[int, int, int], Distance] = {}
        #: Links on which different things are said: what follows on them cannot be compared.
        self._parted: set[_LinkKey] = set()
        self._n_messages = 0

    def pair(self, key: _LinkKey, one: _Compared, other: _Compared) -> None:
        """Compare what was said at the same point of the same link."""
        if key in self._parted:
            return
        if isinstance(one, SliceEvent) and isinstance(other, SliceEvent):
            if _slice_key(one) == _slice_key(other):
                self._slices(one, other)
                return
        elif _is_same(_essence(one), _essence(other)):
            self._n_messages += 1
            return
        self._parted.add(key)
        self._note(key, one.began, f"{one.kind}: {describe(one)}", f"{other.kind}: {describe(other)}")

    def rest(self, key: _LinkKey, one: _Compared | None, other: _Compared | None) -> None:
        """Note that one capture has more to say on a link."""
        if key not in self._parted:
            texts = [
                None if event is None else f"{event.kind}: {describe(event)}" for event in (one, other)
            ]
            self._note(key, (one or other).began if one or other else 0, *texts)  # type: ignore[union-attr]

    def _note(self, key: _LinkKey, time: int, one: str | None, other: str | None) -> None:
        self._messages.append((time, Difference(key[1], key[2], one, other)))

    def _slices(self, one: SliceEvent, other: SliceEvent) -> None:
        transfer = one.transfer
        key = (transfer.segment_index, transfer.sync_index, transfer.sender)
        distance = self._distances.get(key)
        if distance is None:
            distance = self._distances[key] = Distance(
                transfer.segment_index, transfer.sync_index, one.place, one.pipe, transfer.sender
            )
        net = self._dissection.sessions[one.forward.session].net
        if net is None or one.raw == other.raw:
            apart = 0.0
        else:
            float_type = net.pipes[transfer.pipe_index].size.float_type
            apart = _apart(slice_values(one, float_type), slice_values(other, float_type))
        distance.n_rows += 1
        distance.total += apart
        distance.largest = max(distance.largest, apart)
        if apart > self._tolerance:
            distance.n_differ += 1
            if distance.first_position is None:
                distance.first_position, distance.first_forward = one.position, one.forward.index

    def result(self) -> Divergence:
        """Return all that was found."""
        return Divergence(
            tuple(difference for _, difference in sorted(self._messages, key=lambda item: item[0])),
            self._n_messages,
            tuple(self._distances[key] for key in sorted(self._distances)),
        )


def _slice_key(event: SliceEvent) -> tuple[object, ...]:
    return (event.transfer, event.row, event.forward.position, event.forward.batch_size)


def _apart(
    one: np.ndarray[tuple[int], np.dtype[np.float32]], other: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> float:
    """Return the largest difference as a part of the largest magnitude; infinite where one is no number."""
    if one.size != other.size:
        return float("inf")
    if not one.size:
        return 0.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    odd = ~(np.isfinite(a) & np.isfinite(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if (odd & ~same).any():
        return float("inf")
    difference = np.abs(np.where(same, 0.0, a - b)).max()
    scale = np.abs(np.where(odd, 0.0, a)).max()
    return float(difference / scale) if scale else float(difference)


# What is the same -------------------------------------------------------------------------------------


def _essence(event: _Compared) -> object:
    """Return what must be equal in two sessions."""
    if isinstance(event, WeightEvent):
        return event.header
    if not isinstance(event, MessageEvent):
        return _slice_key(event)
    message = event.message
    match message:
        case Greeting():
            return (message.n_sockets, message.worker_index)
        case NodeConfig():
            segments = tuple(
                replace(segment, ops=tuple(map(_without_garbage, segment.ops)))
                for segment in message.segments
            )
            return replace(message, segments=segments)
        case _:
            return message


def _is_same(one: object, other: object) -> bool:
    """Tell whether two records are equal, also where both have a NaN, which does not equal itself."""
    return one == other or repr(one) == repr(other)


def _without_garbage(op: OpConfig) -> OpConfig:
    return replace(op, config=OPS.get(op.code).defined(op.config))


# Output -----------------------------------------------------------------------------------------------


def run_diff(
    one: str,
    other: str,
    tolerance: float,
    *,
    as_json: bool,
    only_differing: bool = False,
    out: TextIO | None = None,
) -> int:
    """Show where two captures differ; return 1 where they do, else 0.

    With ``only_differing`` syncs whose slices are all the same are left out.
    """
    out = sys.stdout if out is None else out
    divergence = diff_captures(one, other, tolerance)
    if only_differing:
        apart = tuple(distance for distance in divergence.distances if distance.n_differ)
        divergence = replace(divergence, distances=apart)
    if as_json:
        print_json(_json(divergence), out)
    else:
        _print(divergence, one, other, out)
    return AMISS if divergence.messages or divergence.first is not None else ExitCode.DONE


def _json(divergence: Divergence) -> dict[str, object]:
    first = divergence.first
    return {
        "version": FORMAT_VERSION,
        "kind": "diff",
        "equal_messages": divergence.n_messages,
        "messages": [asdict(difference) for difference in divergence.messages],
        "first": None if first is None else plain(first),
        "distances": [
            plain(distance) | {"mean": plain(distance.mean)} for distance in divergence.distances
        ],
    }


def _print(divergence: Divergence, one: str, other: str, out: TextIO) -> None:
    terminal = Terminal(out)
    if divergence.messages:
        first = divergence.messages[0]
        terminal.line(f"first message that differs: node {first.sender} > node {first.receiver}")
        terminal.line(f"  {one}: {first.one or 'nothing more'}")
        terminal.line(f"  {other}: {first.other or 'nothing more'}")
        if len(divergence.messages) > 1:
            terminal.line(f"  and {counted(len(divergence.messages) - 1, 'link')} more")
    else:
        terminal.line(f"the same messages and weight pieces: {divergence.n_messages}")
    apart = divergence.first
    if apart is None:
        terminal.line("no slice differs")
        return
    terminal.line(
        f"numbers part first in forward {apart.first_forward}, position {apart.first_position}: "
        f"{apart.place}, what node {apart.sender} sends in pipe {apart.pipe}"
    )
    numbers = ("rows", "differ", "largest", "mean", "first at position")
    table = Table("where", "pipe", "node", *numbers, right=numbers)
    for distance in divergence.distances:
        table.add(
            str(distance.place),
            distance.pipe,
            str(distance.sender),
            str(distance.n_rows),
            str(distance.n_differ),
            f"{distance.largest:.2e}",
            f"{distance.mean:.2e}",
            "" if distance.first_position is None else str(distance.first_position),
        )
    terminal.table(table)
