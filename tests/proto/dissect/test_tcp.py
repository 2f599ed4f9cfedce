"""Streams are put together whatever order segments come in, and nothing is made up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.dissect.frames import tcp_segment
from dllama_proto.dissect.tcp import Conversation, Direction, TcpStreams
from tests.helpers.packets import LINKS, Tcp

_DATA = random.Random(1).randbytes(3000)


class Reader:
    """One direction: bytes by offset, gaps, the end."""

    def __init__(self) -> None:
        self.parts: list[bytes | int] = []
        self.ended = False

    def data(self, time: int, view: memoryview) -> None:
        if self.parts and isinstance(self.parts[-1], bytes):
            self.parts[-1] += bytes(view)
        else:
            self.parts.append(bytes(view))

    def missing(self, time: int, n: int) -> None:
        self.parts.append(n)

    def end(self, time: int, *, reset: bool) -> None:
        self.ended = True


class Wire:
    """Feeds segments of one connection; ``first`` is the dialler's first sequence number."""

    def __init__(self, first: int = 2**32 - 1000) -> None:
        self.first = first
        self.conflicts: list[tuple[int, int]] = []
        self.readers: list[tuple[Conversation, Reader, Reader]] = []
        self.streams = TcpStreams(self._opened, self._conflict)

    def _opened(self, conversation: Conversation) -> None:
        readers = Reader(), Reader()
        self.readers.append((conversation, *readers))
        conversation.dialler.sink, conversation.listener.sink = readers

    def _conflict(self, time: int, direction: Direction, offset: int, size: int) -> None:
        self.conflicts.append((offset, size))

    def send(self, offset: int, payload: bytes, flags: str = "ack", cut: int = 0) -> None:
        self._add(
            Tcp("10.0.0.1", "10.0.0.2", 4000, 9990, self.first + 1 + offset, 7001, flags, payload), cut
        )

    def answer(self, acknowledged: int, flags: str = "ack") -> None:
        self._add(Tcp("10.0.0.2", "10.0.0.1", 9990, 4000, 7001, self.first + 1 + acknowledged, flags), 0)

    def shake_hands(self) -> None:
        self._add(Tcp("10.0.0.1", "10.0.0.2", 4000, 9990, self.first, 0, "syn"), 0)
        self._add(Tcp("10.0.0.2", "10.0.0.1", 9990, 4000, 7000, self.first + 1, "syn ack"), 0)
        self._add(Tcp("10.0.0.1", "10.0.0.2", 4000, 9990, self.first + 1, 7001, "ack"), 0)

    def _add(self, tcp: Tcp, cut: int) -> None:
        number, build = LINKS["ethernet"]
        packet = build(tcp)
        segment = tcp_segment(number, packet[: len(packet) - cut], len(packet))
        assert segment is not None
        self.streams.add(0, segment)


def _pieces(seed: int) -> list[tuple[int, bytes]]:
    rng = random.Random(seed)
    pieces, at = [], 0
    while at < len(_DATA):
        n = rng.randrange(1, 400)
        pieces.append((at, _DATA[at : at + n]))
        at += n
    return pieces


@given(st.integers(0, 999), st.integers(0, 999))
def test_any_order_with_overlaps_gives_the_same_bytes(seed: int, order: int) -> None:
    wire = Wire()
    wire.shake_hands()
    rng = random.Random(order)
    pieces = _pieces(seed)
    for _ in range(5):
        at = rng.randrange(len(_DATA))
        pieces.append((at, _DATA[at : at + 700]))
    rng.shuffle(pieces)
    for at, payload in pieces:
        wire.send(at, payload)
    wire.send(len(_DATA), b"", "ack fin")
    [(_, reader, _)] = wire.readers
    assert reader.parts == [_DATA]
    assert reader.ended
    assert wire.conflicts == []


def test_a_gap_is_reported_once_it_was_acknowledged_and_some_packets_have_come() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, _DATA[:100])
    wire.send(150, _DATA[150:200])
    for _ in range(40):
        wire.answer(100)
    assert wire.readers[0][1].parts == [_DATA[:100]]
    for _ in range(20):
        wire.answer(200)
    assert wire.readers[0][1].parts == [_DATA[:100], 50, _DATA[150:200]]
    wire.send(100, _DATA[100:150])
    assert wire.readers[0][1].parts == [_DATA[:100], 50, _DATA[150:200]]


def test_what_waits_behind_a_gap_is_bounded() -> None:
    wire = Wire()
    wire.shake_hands()
    for n in range(1, 100):
        wire.send(60_000 * n, bytes(60_000))
    assert wire.readers[0][1].parts == [60_000, bytes(60_000 * 99)]


def test_the_end_tells_what_is_missing_before_it() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, b"abc")
    wire.send(10, b"", "ack fin")
    [(_, reader, _)] = wire.readers
    assert not reader.ended
    wire.streams.finish(0)
    assert reader.parts == [b"abc", 7]
    assert reader.ended


def test_what_was_acknowledged_but_never_captured_is_missing_at_the_end() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, b"abc")
    wire.answer(30)
    wire.streams.finish(0)
    assert wire.readers[0][1].parts == [b"abc", 27]


def test_what_the_recorder_cut_off_is_missing() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, _DATA[:100], cut=40)
    wire.send(100, b"after")
    assert wire.readers[0][1].parts == [_DATA[:60], 40, b"after"]


@pytest.mark.parametrize(("payload", "conflicts"), [(b"abc", []), (b"abX", [(0, 3)])])
def test_a_retransmission_with_other_content_is_noticed(
    payload: bytes, conflicts: list[tuple[int, int]]
) -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, b"abc")
    wire.send(0, payload)
    assert wire.conflicts == conflicts
    assert wire.readers[0][1].parts == [b"abc"]
    assert wire.readers[0][0].dialler.retransmitted_bytes == 3


def test_a_keep_alive_is_no_conflict() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, b"abc")
    wire.send(2, b"\0")
    assert wire.conflicts == []


def test_a_connection_without_its_beginning_begins_where_the_capture_does() -> None:
    wire = Wire()
    for at in (300, 100, 200):
        wire.send(at, _DATA[at : at + 100])
    wire.streams.finish(0)
    [(conversation, reader, _)] = wire.readers
    assert reader.parts == [_DATA[100:400]]
    assert not conversation.dialler.begun


def test_the_answer_tells_where_a_stream_begins_whose_syn_was_not_captured() -> None:
    wire = Wire()
    wire.answer(0, "syn ack")
    wire.send(10, b"late")
    wire.send(0, bytes(10))
    [(conversation, one, other)] = wire.readers
    assert conversation.dialled
    assert conversation.dialler.begun
    assert [bytes(10) + b"late"] in (one.parts, other.parts)


def test_the_same_ports_again_are_another_connection() -> None:
    wire = Wire()
    wire.shake_hands()
    wire.send(0, b"one")
    wire.first = 5_000_000
    wire.shake_hands()
    wire.send(0, b"two")
    assert [reader.parts for _, reader, _ in wire.readers] == [[b"one"], [b"two"]]
    assert wire.readers[0][1].ended
