"""A whole link: every byte is part of one event, wherever it is cut, and whatever of it is not captured."""

from __future__ import annotations

from itertools import accumulate
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama_proto.connection import Phase, Role
from dllama_proto.dissect import links as module
from dllama_proto.dissect.events import (
    ClosedEvent,
    FaultEvent,
    MessageEvent,
    MissingEvent,
    NoticeEvent,
    SliceEvent,
    UnexplainedEvent,
    WeightEvent,
)
from dllama_proto.events import PayloadChunk, SliceData
from tests.proto import configs
from tests.proto.dissect.rig import RootLink, said, whole_script

_TOTAL = sum(len(data) for _, data in whole_script())


def _feed(link: RootLink, cuts: set[int], lost: list[tuple[int, int]], stop: int) -> None:
    """Say the script up to byte ``stop``, all bytes of both sides counted, in parts; without what is lost."""

    def is_lost(at: int) -> bool:
        return any(first <= at < first + n for first, n in lost)

    at = 0
    for role, data in whole_script():
        end = min(at + len(data), stop)
        start = at
        while start < end:
            state, edge = is_lost(start), start + 1
            while edge < end and edge not in cuts and is_lost(edge) == state:
                edge += 1
            if state:
                link.lose(role, edge - start)
            else:
                link.say(role, data[start - at : edge - at])
            start = edge
        at += len(data)


_STARTS = list(accumulate(len(data) for _, data in whole_script()[:-1]))
#: Anywhere, but rather where messages and slices begin than within the long ones.
_PLACES = st.one_of(
    st.integers(0, _TOTAL - 1),
    st.builds(
        lambda start, more: min(max(0, start + more), _TOTAL - 1),
        st.sampled_from(_STARTS),
        st.integers(-3, 40),
    ),
)


@given(st.sets(_PLACES, max_size=20))
def test_cuts_change_nothing(cuts: set[int]) -> None:
    link = RootLink()
    _feed(link, cuts, [], _TOTAL)
    for role in (Role.ROOT, Role.WORKER):
        link.end(role)
    link.finish()
    assert link.of_type(UnexplainedEvent) == []
    assert link.of_type(NoticeEvent) == []
    wanted = [event for _, _, event in said() if not isinstance(event, SliceData | PayloadChunk)]
    found = [
        event.header if isinstance(event, WeightEvent) else event.message
        for event in link.events
        if isinstance(event, WeightEvent | MessageEvent)
    ]
    assert found == wanted
    assert len(link.of_type(SliceEvent)) == sum(isinstance(event, SliceData) for _, _, event in said())
    assert [event.phase for event in link.of_type(ClosedEvent)] == [Phase.CLOSED, Phase.CLOSED]


@settings(max_examples=100)
@given(
    st.sets(_PLACES, max_size=12),
    st.lists(st.tuples(_PLACES, st.integers(1, 300)), max_size=4),
    _PLACES,
    st.sampled_from([(), (Role.ROOT,), (Role.WORKER,), (Role.ROOT, Role.WORKER), (Role.WORKER, Role.ROOT)]),
)
def test_whatever_is_lost_every_byte_is_counted_once(
    cuts: set[int], lost: list[tuple[int, int]], stop: int, ends: tuple[Role, ...]
) -> None:
    """The rig checks each byte. What was captured before the first loss is understood as ever."""
    link = RootLink()
    _feed(link, cuts, lost, stop)
    for role in ends:
        link.end(role)
    link.finish()
    assert len(link.of_type(ClosedEvent)) == len(ends)


@given(st.sets(_PLACES, max_size=6), _PLACES, st.binary(min_size=1, max_size=6))
def test_a_link_that_breaks_the_protocol_is_counted_to_its_end(
    cuts: set[int], place: int, garbage: bytes
) -> None:
    link = RootLink()
    _feed(link, cuts, [], place)
    for role in (Role.WORKER, Role.ROOT):
        link.say(role, garbage)
    link.say(Role.ROOT, bytes(50))
    link.say(Role.ROOT, bytes(50))
    link.finish()
    if link.of_type(FaultEvent):
        assert link.streams[0].unexplained
        assert any("cannot be understood" in event.text for event in link.of_type(NoticeEvent))


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_weight_that_breaks_off_is_told_as_far_as_it_came(is_closed: bool) -> None:
    link = RootLink()
    for role, data, event in said():
        if isinstance(event, PayloadChunk):
            break
        link.say(role, data)
    link.say(Role.ROOT, bytes(9))
    link.lose(Role.ROOT, 4)
    link.say(Role.ROOT, bytes(5))
    if is_closed:
        link.end(Role.ROOT)
    link.finish()
    [piece] = link.of_type(WeightEvent)
    assert (piece.data_size, piece.missing, piece.header) == (18, 4, configs.WEIGHT)
    assert link.streams[0].unexplained == 0


def test_what_follows_a_loss_is_one_event_between_two_gaps() -> None:
    link = RootLink()
    link.say(Role.ROOT, b"\xff" * 12)
    for _ in range(3):
        link.say(Role.ROOT, bytes(10))
    link.lose(Role.ROOT, 5)
    for _ in range(3):
        link.say(Role.ROOT, bytes(10))
    link.finish()
    rest = [event for event in link.of_type(UnexplainedEvent) if not event.reason.startswith("it breaks")]
    assert [event.size for event in rest][-2:] == [30, 30]
    assert [event.size for event in link.of_type(MissingEvent)] == [5]


def test_bytes_after_the_stop_packet_are_told() -> None:
    link = RootLink()
    _feed(link, set(), [], _TOTAL)
    link.say(Role.WORKER, b"more")
    link.finish()
    [notice, *_] = link.of_type(NoticeEvent)
    assert notice.text.endswith("a session ends with its stop packet")
    assert link.streams[1].unexplained == 4


def test_what_waits_for_the_other_side_has_a_limit() -> None:
    """A slice that has begun is told before the rest passes by: it lies where it was."""
    link = RootLink()
    n = 0
    for role, data, event in said():
        if isinstance(event, SliceData):
            break
        link.say(role, data)
        n += len(data)
    link.lose(Role.WORKER, 3)
    slices = [data for role, data, event in said() if role is Role.ROOT and isinstance(event, SliceData)]
    with patch.object(module, "_MAX_WAITING", 100):
        link.say(Role.ROOT, b"".join(slices))
        link.say(Role.ROOT, bytes(101))
        link.say(Role.WORKER, bytes(40))
    link.finish()
    assert "101 bytes cannot be read without what the other side said" in link.of_type(NoticeEvent)[0].text
    [begun] = [event for event in link.of_type(SliceEvent) if event.stream is link.streams[1]]
    assert (begun.size, begun.missing) == (3, 3)
    assert link.streams[1].unexplained == 40


@pytest.mark.parametrize("role", [Role.ROOT, Role.WORKER])
def test_a_direction_that_was_not_captured_at_all(role: Role) -> None:
    """The root alone tells what its worker must have said; a worker alone says nothing that is understood."""
    link = RootLink()
    for who, data in whole_script():
        if who is role:
            link.say(who, data)
    link.decoder.finish()
    if role is Role.ROOT:
        assert [event.message for event in link.of_type(MessageEvent)][-1].batch_size == 0  # type: ignore[union-attr]
        assert link.streams[1].missing == sum(len(d) for who, d in whole_script() if who is Role.WORKER)
        assert link.streams[0].unexplained == 0
    else:
        assert link.streams[1].unexplained == sum(len(d) for who, d in whole_script() if who is role)


def test_a_capture_that_ends_before_its_link_says_what_would_come() -> None:
    link = RootLink()
    link.say(Role.ROOT, whole_script()[0][1])
    link.finish()
    assert {event.text for event in link.of_type(NoticeEvent)} == {
        "the capture ends before this connection does (GREETING_ACK comes next)"
    }
    assert configs.GREETING in [event.message for event in link.of_type(MessageEvent)]
