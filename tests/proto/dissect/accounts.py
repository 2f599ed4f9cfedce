"""Whether a dissection accounts for every byte: checks used by several tests."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import BinaryIO, cast

from dllama_proto.dissect import (
    Dissection,
    MessageEvent,
    MissingEvent,
    SliceEvent,
    Stream,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
    dissect_pcap,
)
from dllama_proto.dissect.capture import Packet
from dllama_proto.schemas.capture_file import PCAP_MAGIC_NANOSECONDS

__all__ = ["check_accounts", "dissect", "dissect_bytes"]


def dissect_bytes(data: bytes) -> tuple[Dissection, list[WireEvent]]:
    """Dissect a capture file."""
    dissection = dissect_pcap(cast("BinaryIO", BytesIO(data)))
    return dissection, list(dissection)


def dissect(packets: Sequence[Packet]) -> tuple[Dissection, list[WireEvent]]:
    """Dissect packets."""
    # Many times what the schemas build in a second; that they build the same is tested elsewhere.
    head = struct.pack("<IHHiIII", PCAP_MAGIC_NANOSECONDS, 2, 4, 0, 0, 0, packets[0][1] if packets else 1)
    records = (
        struct.pack("<IIII", time // 10**9, time % 10**9, len(data), size) + data
        for time, _, data, size in packets
    )
    return dissect_bytes(head + b"".join(records))


def check_accounts(dissection: Dissection, events: Iterable[WireEvent]) -> None:
    """Check that events cover their streams without overlaps, and that sums are those of the streams."""
    ranges: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
    missing: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        match event:
            case MessageEvent() | WeightEvent() | SliceEvent() | UnexplainedEvent():
                assert event.stream is not None
                if event.size:
                    ranges[event.stream].append((event.offset, event.offset + event.size))
                if event.raw and not isinstance(event, WeightEvent):
                    assert len(event.raw) == event.size
                assert event.began <= event.time
            case MissingEvent():
                assert event.stream is not None
                missing[event.stream].append((event.offset, event.offset + event.size))
            case _:
                pass
    for stream in dissection.streams:
        end, gaps = 0, 0
        for start, stop in sorted(ranges[stream]):
            assert start >= end, f"{stream}: byte {start} belongs to two events"
            # What lies between must be missing, whole.
            gaps += start - end
            end = stop
        lost = sum(stop - start for start, stop in missing[stream])
        assert lost == stream.missing
        beyond = max((stop for _, stop in missing[stream]), default=0)
        total = max(end, beyond)
        assert stream.explained + stream.missing + stream.unexplained == total
        assert gaps + total - end <= lost
