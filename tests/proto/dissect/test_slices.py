"""Slices: whole ones with their bytes, and of one with a gap how much is missing; the next one is as ever."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.connection import Phase, Role
from dllama_proto.dissect import slices as module
from dllama_proto.dissect.events import MissingEvent, SliceEvent, UnexplainedEvent
from dllama_proto.dissect.slices import SliceDecoder
from dllama_proto.events import SliceData
from tests.proto import configs
from tests.proto.dissect.rig import RootLink, account, half_of, said
from tests.proto.stages import Pair

_SLICES = {
    role: [event for who, _, event in said() if who is role and isinstance(event, SliceData)]
    for role in Role
}
_BYTES = {role: b"".join(bytes(event.data) for event in events) for role, events in _SLICES.items()}


def _at_slices() -> RootLink:
    """Return a link whose first forward has begun."""
    link = RootLink()
    for role, data, event in said():
        if isinstance(event, SliceData):
            break
        link.say(role, data)
    assert link.halves[Role.ROOT].link.phase is Phase.SLICES
    return link


_PARTS = st.lists(st.tuples(st.sampled_from(Role), st.integers(1, 900), st.booleans()), max_size=12)


@given(_PARTS)
def test_every_slice_is_told_with_what_came_of_it(parts: list[tuple[Role, int, bool]]) -> None:
    link = _at_slices()
    left = dict(_BYTES)
    for role, n, is_lost in parts:
        data, left[role] = left[role][:n], left[role][n:]
        if data and is_lost:
            link.lose(role, len(data))
        else:
            link.say(role, data)
    link.finish()
    assert link.of_type(UnexplainedEvent) == []
    for role, stream in zip((Role.ROOT, Role.WORKER), link.streams, strict=True):
        found = [event for event in link.of_type(SliceEvent) if event.stream is stream]
        given_bytes = len(_BYTES[role]) - len(left[role])
        assert sum(event.size for event in found) == given_bytes
        for event, sent in zip(found, _SLICES[role], strict=False):
            assert (event.transfer, event.row, event.position) == (sent.transfer, sent.row, 96 + sent.row)
            if event.raw:
                assert bytes(event.raw) == bytes(sent.data)[: event.size]
            else:
                assert event.missing
            if event is not found[-1]:
                assert event.size == sent.transfer.size


def test_slices_are_named_for_their_pipe_and_place() -> None:
    link = _at_slices()
    link.say(Role.ROOT, _BYTES[Role.ROOT])
    first = link.of_type(SliceEvent)[0]
    pipe = configs.NET.pipes[first.transfer.pipe_index].name
    assert (first.pipe, first.place.part, first.forward.batch_size) == (
        pipe,
        "input",
        configs.CONTROL.batch_size,
    )


def test_a_slice_with_a_gap_says_where_the_gap_is() -> None:
    link = _at_slices()
    sent = _SLICES[Role.ROOT][0]
    link.say(Role.ROOT, bytes(sent.data)[:10])
    link.lose(Role.ROOT, 6)
    link.say(Role.ROOT, bytes(sent.data)[16:])
    [gap] = link.of_type(MissingEvent)
    [slice_] = link.of_type(SliceEvent)
    assert (gap.offset - slice_.offset, gap.size, gap.within) == (10, 6, f"{sent.transfer}, row 0")
    assert (slice_.size, slice_.missing, len(slice_.raw)) == (sent.transfer.size, 6, 0)


def test_a_large_slice_is_counted_and_not_held() -> None:
    link = _at_slices()
    sent = _SLICES[Role.ROOT][0]
    with patch.object(module, "_MAX_SLICE", sent.transfer.size - 1):
        for at in range(0, sent.transfer.size, 50):
            link.say(Role.ROOT, bytes(sent.data)[at : at + 50])
            assert link.halves[Role.ROOT].pending == 0
    [slice_] = link.of_type(SliceEvent)
    assert (slice_.size, slice_.missing, len(slice_.raw)) == (sent.transfer.size, 0, 0)
    link.finish()


def test_both_directions_may_have_a_slice_at_hand() -> None:
    link = _at_slices()
    for role in Role:
        link.lose(role, 3)
    link.finish()
    assert [(event.size, event.missing) for event in link.of_type(SliceEvent)] == [(3, 3), (3, 3)]


def test_forwards_are_counted() -> None:
    link = _at_slices()
    decoder = link.decoder._slices
    assert decoder.n_forwards == 1
    for role, data in _BYTES.items():
        link.say(role, data)
    link.say(Role.ROOT, next(data for _, data, event in said() if event == configs.CONTROL))
    assert decoder.n_forwards == 2
    link.say(Role.ROOT, _BYTES[Role.ROOT])
    assert {event.forward.index for event in link.of_type(SliceEvent)} == {0, 1}


def test_a_slice_outside_of_a_forward_is_a_bug() -> None:
    kept, _ = account()
    half = half_of(Pair().worker, kept)
    half.data(1, memoryview(bytes(5000)))
    session = RootLink().session
    sent = _SLICES[Role.ROOT][0]
    with (
        patch.object(type(half), "count_payload"),
        pytest.raises(RuntimeError, match="a bug of the phase table"),
    ):
        SliceDecoder(session, kept).step(half, sent.transfer, 0, 0)
