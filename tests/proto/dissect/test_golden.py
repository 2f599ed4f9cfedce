"""Every recorded session, and every byte of it: what it is, and between whom."""

from __future__ import annotations

from collections import Counter

import pytest

from dllama_proto._phases import Phase
from dllama_proto.dissect import (
    ClosedEvent,
    Kind,
    LinkKind,
    MessageEvent,
    NoticeEvent,
    SliceEvent,
    WeightEvent,
    dissect_pcap,
)
from dllama_proto.enums import SyncType
from dllama_proto.messages import ControlPacket, NodeConfig
from tests.helpers.captures import CASES, CUT_CASE, capture_path, load
from tests.helpers.packets import FILES, LINKS, golden_packets, rewrap
from tests.proto.dissect.accounts import check_accounts, dissect, dissect_bytes


@pytest.mark.parametrize("case", CASES)
def test_every_byte_of_a_session_is_explained(case: str) -> None:
    session = load(case)
    dissection = dissect_pcap(capture_path(case))
    events = list(dissection)
    check_accounts(dissection, events)
    totals = dissection.totals
    assert (totals.unexplained_bytes, totals.missing_bytes) == (0, 0)
    assert totals.explained_bytes == sum(len(stream.data) for stream in session.streams)
    assert (totals.sessions, totals.foreign_connections) == (1, 0)
    kinds = Counter(event.kind for event in events)
    assert not {Kind.NOTICE, Kind.FAULT, Kind.MISSING, Kind.UNEXPLAINED} & set(kinds)
    n_links = session.n_nodes * (session.n_nodes - 1) // 2
    assert (kinds[Kind.OPENED], kinds[Kind.CLOSED]) == (n_links, 2 * n_links)


@pytest.mark.parametrize("case", CASES)
def test_who_speaks_to_whom_is_as_recorded(case: str) -> None:
    session = load(case)
    dissection = dissect_pcap(capture_path(case))
    assert list(dissection)
    found = {
        (stream.sender, stream.receiver, stream.source.port, stream.destination.port)
        for stream in dissection.streams
    }
    assert found == {
        (entry["sender"], entry["receiver"], entry["src_port"], entry["dst_port"])
        for entry in session.index["streams"]
    }
    for stream in dissection.streams:
        assert stream.link is (LinkKind.PEER if stream.sender and stream.receiver else LinkKind.ROOT)


@pytest.mark.parametrize("case", CASES)
def test_raw_bytes_and_offsets_are_those_of_the_stream(case: str) -> None:
    session = load(case)
    for event in dissect_pcap(capture_path(case)):
        if isinstance(event, MessageEvent | SliceEvent | WeightEvent):
            assert event.stream is not None
            assert event.stream.sender is not None
            assert event.stream.receiver is not None
            data = session.data(event.stream.sender, event.stream.receiver)
            assert data[event.offset : event.offset + len(event.raw)] == event.raw


@pytest.mark.parametrize("case", CASES)
def test_slices_are_attributed_to_row_and_place(case: str) -> None:
    session = load(case)
    events = list(dissect_pcap(capture_path(case)))
    forwards = [packet for packet in session.control_packets if packet[1]]
    packets = [
        event.message
        for event in events
        if isinstance(event, MessageEvent) and isinstance(event.message, ControlPacket)
    ]
    assert len(packets) == len(session.control_packets) * (session.n_nodes - 1)
    node = next(
        event.message
        for event in events
        if isinstance(event, MessageEvent) and isinstance(event.message, NodeConfig)
    )
    slices = [event for event in events if isinstance(event, SliceEvent)]
    rows = sum(batch_size for _, batch_size in forwards)
    others = session.n_nodes - 1
    senders = {
        SyncType.WITH_ROOT: others,
        SyncType.NODE_SLICES: session.n_nodes * others,
        SyncType.NODE_SLICES_EXCEPT_ROOT: others,
    }
    per_row = sum(senders[sync.sync_type] for segment in node.segments for sync in segment.syncs)
    assert len(slices) == rows * per_row
    for event in slices:
        assert event.stream is not None
        assert (event.transfer.sender, event.transfer.receiver) == (
            event.stream.sender,
            event.stream.receiver,
        )
        position, batch_size = forwards[event.forward.index]
        assert (event.forward.position, event.forward.batch_size) == (position, batch_size)
        assert position <= event.position < position + batch_size
        assert event.missing == 0
    places = {event.transfer.segment_index: str(event.place) for event in slices}
    n_layers = (len(node.segments) - 2) // 2
    assert list(dict(sorted(places.items())).values()) == [
        "input",
        *(f"layer {n} {part}" for n in range(n_layers) for part in ("attention", "feed-forward")),
        "output",
    ]


def test_experts_are_told_apart() -> None:
    pieces = [e for e in dissect_pcap(capture_path("qwen3_moe-q40-2n")) if isinstance(e, WeightEvent)]
    experts = {e.expert for e in pieces if e.header.name == "block_matmul_w1"}
    assert experts == set(range(len(experts)))
    assert len(experts) > 1
    assert {e.expert for e in pieces if e.header.name == "block_matmul_q"} == {None}


def test_a_capture_that_ends_early_says_so() -> None:
    dissection = dissect_pcap(capture_path(CUT_CASE))
    events = list(dissection)
    check_accounts(dissection, events)
    notices = [event.text for event in events if isinstance(event, NoticeEvent)]
    assert any("the capture ends before this connection does" in text for text in notices)
    assert not any(isinstance(event, ClosedEvent) for event in events)


def test_the_end_of_a_whole_session_is_an_end() -> None:
    events = list(dissect_pcap(capture_path("tiny-q40-2n")))
    closed = [event for event in events if isinstance(event, ClosedEvent)]
    assert [event.phase for event in closed] == [Phase.CLOSED, Phase.CLOSED]


def _essence(events: object) -> list[tuple[object, ...]]:
    return [
        (event.kind, event.time, event.offset, event.size, bytes(event.raw), str(event.stream))
        for event in events  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("ipv6", [False, True])
def test_every_link_layer_gives_the_same_events(link: str, ipv6: bool) -> None:
    packets = golden_packets("tiny-q40-2n")
    _, expected = dissect(packets)
    dissection, events = dissect(rewrap(packets, link, ipv6=ipv6))
    assert _essence(events) == _essence(expected)
    assert dissection.totals.unexplained_bytes == 0


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_gives_the_same_events(kind: str) -> None:
    packets = golden_packets("tiny-q40-2n")
    _, expected = dissect(packets)
    dissection, events = dissect_bytes(FILES[kind][0](packets))
    assert [event.raw for event in events] == [event.raw for event in expected]
    assert dissection.totals.unexplained_bytes == 0
