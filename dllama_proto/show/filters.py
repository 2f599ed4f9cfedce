"""Which events somebody wants to see: by node, kind, layer, position."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dllama_proto.dissect.events import Kind, MessageEvent, SliceEvent, WeightEvent, WireEvent
from dllama_proto.messages import ControlPacket
from dllama_proto.names import is_of_layer

__all__ = ["ALWAYS", "Filter", "layer_of", "parse_ranges"]

#: What is wrong with a capture is never filtered out by what it would have been part of.
ALWAYS = frozenset({Kind.NOTICE, Kind.FAULT})


@dataclass(frozen=True, slots=True)
class Filter:
    """Events pass that fit everything that is set; empty means any."""

    nodes: Collection[int] = ()
    kinds: Collection[Kind] = ()
    layers: Collection[int] = ()
    positions: Collection[int] = ()

    def __call__(self, event: WireEvent) -> bool:
        """Tell whether an event passes."""
        if event.kind in ALWAYS and not self.kinds:
            return True
        if self.kinds and event.kind not in self.kinds:
            return False
        if self.nodes and (
            event.stream is None or not {event.stream.sender, event.stream.receiver} & set(self.nodes)
        ):
            return False
        if self.layers and layer_of(event) not in self.layers:
            return False
        return not self.positions or self._has_position(event)

    def _has_position(self, event: WireEvent) -> bool:
        if isinstance(event, SliceEvent):
            return event.position in self.positions
        if isinstance(event, MessageEvent) and isinstance(event.message, ControlPacket):
            start = event.message.position
            return any(start + row in self.positions for row in range(event.message.batch_size))
        return False


def layer_of(event: WireEvent) -> int | None:
    """Return the layer that an event is about."""
    if isinstance(event, SliceEvent):
        return event.place.layer
    if isinstance(event, WeightEvent) and is_of_layer(event.header.name):
        return event.header.op_index
    return None


class _Ranges(Collection[int]):
    """Numbers given as ranges, which may be long."""

    def __init__(self, ranges: list[range]) -> None:
        self._ranges = ranges

    def __contains__(self, number: object) -> bool:
        return any(number in part for part in self._ranges)

    def __iter__(self) -> object:  # type: ignore[override]
        return (number for part in self._ranges for number in part)

    def __len__(self) -> int:
        return sum(map(len, self._ranges))


def parse_ranges(text: str) -> Collection[int]:
    """Return the numbers of ``3``, ``0-7`` or ``0-7,12``. Raises ValueError."""
    ranges = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{part.strip()!r} is neither a number nor a range such as 0-7")
        ranges.append(range(int(first), int(last or first) + 1))
    return _Ranges(ranges)
