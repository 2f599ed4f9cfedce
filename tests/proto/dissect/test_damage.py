"""Captures that lack something: reported, accounted for, never a traceback."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama_proto.dissect import (
    ClosedEvent,
    FaultEvent,
    Kind,
    MissingEvent,
    NoticeEvent,
    SliceEvent,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.dissect.capture import Packet
from tests.helpers.packets import LINKS, Tcp, golden_packets, pcap, segment_of
from tests.proto.dissect.accounts import check_accounts, dissect, dissect_bytes

_SMALL = golden_packets("tiny-q40-2n")
_PEERS = golden_packets("gqa-q40-4n")
_SMALL_FILE = pcap(_SMALL)


@cache
def _whole(packets: tuple[Packet, ...]) -> int:
    """Return how many bytes are explained where nothing lacks."""
    return dissect(packets)[0].totals.explained_bytes


def _complains(events: list[WireEvent]) -> bool:
    return any(isinstance(e, NoticeEvent | MissingEvent | UnexplainedEvent | FaultEvent) for e in events)


def _payload(packet: Packet) -> int:
    return len(segment_of(packet[2]).payload)


def _packet(tcp: Tcp, time: int) -> Packet:
    number, build = LINKS["ethernet"]
    data = build(tcp)
    return time, int(number), data, len(data)


@settings(max_examples=20)
@given(st.integers(0, len(_SMALL_FILE) - 1))
def test_a_capture_cut_at_any_byte_says_so(cut: int) -> None:
    dissection, events = dissect_bytes(_SMALL_FILE[:cut])
    check_accounts(dissection, events)
    # Only the very last packets, after both ends have closed, can be lost without a loss.
    assert _complains(events) or sum(isinstance(e, ClosedEvent) for e in events) == 2 or cut in (24,)


@settings(max_examples=20)
@given(
    st.sampled_from([_SMALL, _PEERS]), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3)
)
def test_dropped_packets_are_missed(packets: tuple[Packet, ...], where: list[float]) -> None:
    dropped = {int(at * len(packets)) for at in where}
    left = [packet for index, packet in enumerate(packets) if index not in dropped]
    dissection, events = dissect(left)
    check_accounts(dissection, events)
    lost = _whole(packets) - dissection.totals.explained_bytes
    assert lost >= 0
    if lost:
        assert _complains(events)
    assert dissection.totals.missing_bytes <= sum(_payload(packets[index]) for index in dropped)


@settings(max_examples=20)
@given(
    st.sampled_from([_SMALL, _PEERS]), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5)
)
def test_swapped_packets_lose_nothing(packets: tuple[Packet, ...], where: list[float]) -> None:
    swapped = list(packets)
    for at in where:
        index = int(at * (len(packets) - 1))
        swapped[index], swapped[index + 1] = swapped[index + 1], swapped[index]
    dissection, events = dissect(swapped)
    check_accounts(dissection, events)
    assert dissection.totals.explained_bytes == _whole(packets) or _complains(events)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(2, 30))
def test_any_order_and_any_holes_never_make_a_traceback(seed: int, reach: int) -> None:
    rng = random.Random(seed)
    packets = [packet for packet in _PEERS if rng.random() > 0.02]
    packets = [p for _, p in sorted(enumerate(packets), key=lambda item: item[0] + rng.random() * reach)]
    dissection, events = dissect(packets)
    check_accounts(dissection, events)


@settings(max_examples=20)
@given(st.integers(0, len(_SMALL) - 1), st.binary(min_size=1, max_size=8), st.floats(0, 1))
def test_changed_bytes_are_faults_or_other_values(index: int, garbage: bytes, at: float) -> None:
    time, link_type, data, size = _SMALL[index]
    start = 66 + int(at * max(0, len(data) - 66 - len(garbage)))
    changed = (data[:start] + garbage + data[start + len(garbage) :])[: len(data)]
    packets = [*_SMALL[:index], (time, link_type, changed, size), *_SMALL[index + 1 :]]
    dissection, events = dissect(packets)
    check_accounts(dissection, events)


def _index_of(kind: Kind, nth: int = 0) -> int:
    """Return the packet that holds the last byte of the nth event of a kind."""
    _, events = dissect(_SMALL)
    found = [event for event in events if event.kind is kind]
    return next(index for index, packet in enumerate(_SMALL) if packet[0] == found[nth].time)


def test_a_hole_in_a_weight_is_told_with_its_range_and_the_session_goes_on() -> None:
    packets = golden_packets("tiny-f32-2n")
    _, events = dissect(packets)
    pieces = [event for event in events if isinstance(event, WeightEvent)]
    first = next(segment_of(p[2]) for p in packets if segment_of(p[2]).flags == "syn")

    def inside(packet: Packet) -> bool:
        tcp = segment_of(packet[2])
        start = (tcp.sequence - first.sequence - 1) % 2**32
        return tcp.source_port == first.source_port and any(
            piece.offset + len(piece.raw) < start and start + len(tcp.payload) < piece.offset + piece.size
            for piece in pieces
        )

    lost = next(packet for packet in packets if inside(packet))
    dissection, events = dissect([packet for packet in packets if packet is not lost])
    check_accounts(dissection, events)
    gap = next(event for event in events if isinstance(event, MissingEvent))
    assert gap.size == _payload(lost)
    piece = next(event for event in events if isinstance(event, WeightEvent) and event.missing)
    assert gap.within.startswith(f"weight {piece.header.name!r}")
    assert (piece.missing, piece.data_size) == (_payload(lost), piece.header.n_bytes)
    assert dissection.totals.unexplained_bytes == 0
    assert sum(isinstance(event, ClosedEvent) for event in events) == 2


def _offset_of(packet: Packet, first: Tcp) -> int | None:
    """Return where in the dialler's stream a packet's payload lies."""
    tcp = segment_of(packet[2])
    if tcp.source_port != first.source_port or not tcp.payload:
        return None
    return (tcp.sequence - first.sequence - 1) % 2**32


@pytest.mark.parametrize("case", ["tiny-q40-2n", "tiny-f32-2n", "qwen3_moe-q40-2n"])
@pytest.mark.parametrize("nth", [0, 7, -2, -1])
def test_after_a_lost_weight_header_the_next_one_is_found(case: str, nth: int) -> None:
    packets = golden_packets(case)
    whole, events = dissect(packets)
    pieces = [event for event in events if isinstance(event, WeightEvent)]
    first = segment_of(packets[0][2])

    def has_header(packet: Packet) -> bool:
        start = _offset_of(packet, first)
        at = pieces[nth].offset
        return start is not None and start <= at < start + _payload(packet)

    lost = next(packet for packet in packets if has_header(packet))
    dissection, events = dissect([packet for packet in packets if packet is not lost])
    check_accounts(dissection, events)
    before = _offset_of(lost, first)
    assert before is not None
    # What comes after the next header is as it was, to the stop packet.
    behind = [piece for piece in pieces if piece.offset >= before + _payload(lost)]
    found = [event.header for event in events if isinstance(event, WeightEvent) and not event.missing]
    same = found[len(found) - len(behind) :] == [piece.header for piece in behind]
    assert same
    assert sum(isinstance(event, ClosedEvent) for event in events) == 2
    assert sum(isinstance(event, SliceEvent) for event in events) > 50
    between = (
        (behind[0].offset if behind else pieces[-1].offset + pieces[-1].size) - before - _payload(lost)
    )
    # The first bytes of the header may lie in the packet before.
    assert 0 <= dissection.totals.unexplained_bytes - max(0, between) < 40
    assert dissection.totals.missing_bytes == _payload(lost)
    reasons = {event.reason for event in events if isinstance(event, UnexplainedEvent)}
    assert reasons <= {"weights whose header was not captured"}
    assert whole.totals.unexplained_bytes == 0


def test_names_in_the_data_of_weights_are_no_headers() -> None:
    from dllama_proto.dissect.weight_search import WeightSearch
    from dllama_proto.limits import DEFAULT_LIMITS

    def header(name: str, index: int, offset: int, size: int) -> bytes:
        text = name.encode() + b"\0"
        return struct.pack(f"<I{len(text)}sIQQ", len(text), text, index, offset, size)

    search = WeightSearch({("q", 0): 100, ("wo", 3): 50}, DEFAULT_LIMITS)
    wrong = header("q", 1, 0, 10) + header("q", 0, 90, 11) + header("wo", 3, 0, 0) + header("x", 0, 0, 1)
    right = header("wo", 3, 10, 40)
    data = b"\1" * 50 + wrong + b"\2" * 7 + right + b"data"
    for step in (1, 3, 1000):
        found: bytes | None = None
        at = 0
        while found is None:
            found = search.look(data[at : at + step])
            at += step
        assert found + data[at:] == right + b"data"
        assert search.end() == (b"", False)


def test_a_hole_in_the_slices_is_told_and_the_session_goes_on() -> None:
    index = _index_of(Kind.SLICE, 30)
    dissection, events = dissect([*_SMALL[:index], *_SMALL[index + 1 :]])
    check_accounts(dissection, events)
    damaged = [event for event in events if isinstance(event, SliceEvent) and event.missing]
    assert sum(event.missing for event in damaged) == _payload(_SMALL[index])
    assert all(not event.raw for event in damaged)
    assert dissection.totals.unexplained_bytes == 0


def test_a_lost_ack_is_missed_but_known() -> None:
    _, events = dissect(_SMALL)
    ack = [event for event in events if event.kind is Kind.ACK][-1]
    index = next(index for index, packet in enumerate(_SMALL) if packet[0] == ack.time)
    dissection, events = dissect([*_SMALL[:index], *_SMALL[index + 1 :]])
    [gap] = [event for event in events if isinstance(event, MissingEvent)]
    assert (gap.within, gap.size) == ("Ack(WEIGHTS)", 4)
    assert dissection.totals.unexplained_bytes == 0


def test_a_lost_control_packet_loses_the_link() -> None:
    index = _index_of(Kind.CONTROL, 2)
    dissection, events = dissect([*_SMALL[:index], *_SMALL[index + 1 :]])
    check_accounts(dissection, events)
    assert dissection.totals.unexplained_bytes > 0
    notices = [event.text for event in events if isinstance(event, NoticeEvent)]
    assert any("bytes of IDLE were not captured" in text for text in notices)


def test_a_capture_that_begins_in_the_middle_is_read_from_the_next_handshake_on() -> None:
    """The second half of a session, then a whole one on the same ports."""
    later = [(time + 10**10, *rest) for time, *rest in _SMALL]
    dissection, events = dissect([*_SMALL[len(_SMALL) // 2 :], *later])  # type: ignore[list-item]
    check_accounts(dissection, events)
    notices = [event.text for event in events if isinstance(event, NoticeEvent)]
    assert any("begins in the middle of this connection" in text for text in notices)
    assert any("from before the root starts: tcpdump -i any -s 0" in text for text in notices)
    whole, _ = dissect(_SMALL)
    assert dissection.totals.explained_bytes == whole.totals.explained_bytes
    assert dissection.totals.unexplained_bytes > 0


@pytest.mark.parametrize("kept", [40, 60, 96])
def test_a_small_snap_length_is_told_once_and_how_to_record(kept: int) -> None:
    """Also where nothing but headers was kept, or less."""
    packets = [(time, link, data[:kept], size) for time, link, data, size in golden_packets("tiny-q40-2n")]
    _, events = dissect_bytes(pcap(packets))
    texts = [
        event.text for event in events if isinstance(event, NoticeEvent) and "snap length" in event.text
    ]
    assert len(texts) == 1
    assert f" was cut to {kept}, " in texts[0]
    assert "tcpdump -i any -s 0 -w FILE" in texts[0]


def test_one_direction_alone_is_read_and_the_other_is_missing() -> None:
    from_root = [p for p in _SMALL if segment_of(p[2]).destination_port == 24240]
    dissection, events = dissect(from_root)
    check_accounts(dissection, events)
    whole, _ = dissect(_SMALL)
    [root, worker] = dissection.streams
    [whole_root, whole_worker] = whole.streams
    assert (root.explained, root.unexplained) == (whole_root.explained, 0)
    assert (worker.explained, worker.missing) == (0, whole_worker.explained)


def test_other_programs_are_left_alone() -> None:
    stranger = Tcp("10.0.0.9", "10.0.0.2", 5000, 24240, 100, 0, "syn")
    talk = [
        _packet(stranger, 1),
        _packet(replace(stranger.reverse(), sequence=500, acknowledgement=101, flags="syn ack"), 2),
        _packet(replace(stranger, sequence=101, flags="ack", payload=b"GET / HTTP/1.1\r\n\r\n"), 3),
    ]
    dissection, events = dissect([*talk, *_SMALL])
    assert dissection.totals.foreign_connections == 1
    assert dissection.totals.unexplained_bytes == 0
    assert not _complains(events)


@pytest.mark.parametrize("keep", [(21040,), (21041,), (21042,)])
def test_a_capture_of_one_machine_knows_its_links(keep: tuple[int, ...]) -> None:
    """All connections of one worker only; peers by the peer list it was sent."""
    whole, _ = dissect(_PEERS)
    node = keep[0] - 21039
    mine = {s.connection for s in whole.streams if node in (s.sender, s.receiver)}
    ports = {s.source.port for s in whole.streams if s.connection in mine} | {
        s.destination.port for s in whole.streams if s.connection in mine
    }
    packets = [
        p
        for p in _PEERS
        if {segment_of(p[2]).source_port, segment_of(p[2]).destination_port} <= ports
        and any(
            {segment_of(p[2]).source_port, segment_of(p[2]).destination_port}
            == {s.source.port, s.destination.port}
            for s in whole.streams
            if s.connection in mine
        )
    ]
    dissection, events = dissect(packets)
    check_accounts(dissection, events)
    assert dissection.totals.unexplained_bytes == 0
    ours = {(s.sender, s.receiver, s.source.port) for s in dissection.streams}
    assert ours == {(s.sender, s.receiver, s.source.port) for s in whole.streams if s.connection in mine}
