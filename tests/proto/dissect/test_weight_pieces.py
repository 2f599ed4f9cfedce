"""Pieces of weights: counted however their data comes, and what is missing of one is told with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.dissect.events import MissingEvent, WeightEvent, WireEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.message_reader import MessageBytes
from dllama_proto.dissect.session import Session
from dllama_proto.dissect.weight_pieces import WeightPieces
from dllama_proto.messages import WeightHeader
from tests.proto import configs
from tests.proto.dissect.rig import Given, account, check_every_byte, conversation, half_of, said
from tests.proto.stages import Pair

_HEAD = next(data for _, data, event in said() if event == configs.WEIGHT)
_N = configs.WEIGHT.n_bytes
_NODE = configs.NODE.node_index


def _begun() -> tuple[WeightPieces, Half[Connection], Pair, list[WireEvent]]:
    """Return a reader of pieces that has taken a header, captured at 1."""
    pair = Pair().advance_to(Phase.WEIGHTS)
    kept, events = account()
    half = half_of(pair.worker, kept)
    half.other.link = pair.root
    session = Session(0, configs.GREETING, conversation().dialler, kept.notice)
    session.learn(_NODE, configs.NODE)
    pieces = WeightPieces(session, kept, half, _NODE)
    half.data(1, memoryview(_HEAD))
    half.take(len(_HEAD))
    assert pair.say(Role.ROOT, configs.WEIGHT) == configs.WEIGHT
    pieces.begin(configs.WEIGHT, MessageBytes(0, memoryview(_HEAD), 1, 1))
    return pieces, half, pair, events


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=8), st.booleans())
def test_every_byte_is_the_pieces_or_missing(parts: list[tuple[int, bool]], at_once: bool) -> None:
    """Parts come or are lost, one by one or all before any is looked at; the piece may not become whole."""
    pieces, half, pair, events = _begun()
    given_bytes: Given = [(len(_HEAD), 1)]
    left = _N
    for time, (n, is_lost) in enumerate(parts, start=2):
        n = min(n, left)
        if not n:
            break
        left -= n
        given_bytes.append((n, None if is_lost else time))
        if is_lost:
            half.missing(time, n)
        else:
            half.data(time, memoryview(bytes(n)))
        while not at_once and half.pending and pieces.step():
            pass
    while half.pending and pieces.step():
        pass
    is_whole = not left
    assert len([e for e in events if isinstance(e, WeightEvent)]) == is_whole
    pieces.break_off()
    check_every_byte(given_bytes, half.stream, events)
    [piece] = [e for e in events if isinstance(e, WeightEvent)]
    lost = sum(n for n, time in given_bytes if time is None)
    assert (piece.header, piece.data_size, piece.missing) == (configs.WEIGHT, _N - left, lost)
    assert bytes(piece.raw) == _HEAD
    assert piece.shape == configs.NODE.segments[1].ops[-1].weight_size
    for gap in events:
        if isinstance(gap, MissingEvent):
            assert gap.within == "weight 'weighted' of index 0"
    # Both ends know how far it has come.
    assert (half.bulk, pair.worker.payload_size, pair.root.unsent_size) == (0, left, left)
    pieces.break_off()
    assert sum(isinstance(e, WeightEvent) for e in events) == 1


def test_nothing_is_to_be_done_while_nothing_waits() -> None:
    pieces, _, _, events = _begun()
    assert not pieces.step()
    assert events == []


def test_what_comes_behind_a_piece_is_left() -> None:
    pieces, half, _, events = _begun()
    half.data(2, memoryview(bytes(_N) + b"next"))
    assert pieces.step()
    assert (half.ready, half.offset, len(events)) == (4, len(_HEAD) + _N, 1)


def test_a_gap_may_go_beyond_a_piece() -> None:
    pieces, half, _, events = _begun()
    half.missing(2, _N + 5)
    assert pieces.step()
    assert half.gap == 5
    [gap, piece] = events
    assert isinstance(piece, WeightEvent)
    assert (gap.size, piece.missing, half.stream.missing) == (_N, _N, _N)


def test_a_piece_without_data_is_whole_with_its_header() -> None:
    kept, events = account()
    half = half_of(Connection(Role.WORKER), kept)
    session = Session(0, configs.GREETING, conversation().dialler, kept.notice)
    pieces = WeightPieces(session, kept, half, _NODE)
    header = replace(configs.WEIGHT, n_bytes=0)
    half.offset = 30
    pieces.begin(header, MessageBytes(0, memoryview(bytes(30)), 3, 4))
    [piece] = events
    assert isinstance(piece, WeightEvent)
    assert (piece.size, piece.data_size, piece.began, piece.time) == (30, 0, 3, 4)
    # The configuration of this node was not captured.
    assert (piece.shape, piece.expert) == (None, None)


def test_an_expert_is_told_by_its_place_in_the_weight() -> None:
    kept, events = account()
    half = half_of(Connection(Role.WORKER), kept)
    session = Session(0, configs.GREETING, conversation().dialler, kept.notice)
    session.learn(_NODE, configs.NODE)
    pieces = WeightPieces(session, kept, half, _NODE)
    shape = configs.NODE.segments[1].ops[-1].weight_size
    for offset in (0, shape.n_bytes_xy):
        pieces.begin(WeightHeader("weighted", 0, offset, 0), MessageBytes(0, memoryview(b""), 1, 1))
    assert [e.expert for e in events if isinstance(e, WeightEvent)] == [0, 1]


def test_data_without_a_header_is_a_bug() -> None:
    kept, _ = account()
    session = Session(0, configs.GREETING, conversation().dialler, kept.notice)
    pieces = WeightPieces(session, kept, half_of(Connection(Role.WORKER), kept), _NODE)
    with pytest.raises(RuntimeError, match="a bug of the decoder"):
        pieces.step()
