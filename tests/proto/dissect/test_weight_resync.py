"""Resynchronisation: from a lost header to the next, or to the end of the weights; no byte counted twice."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.connection import Phase, Role
from dllama_proto.dissect.events import (
    ClosedEvent,
    MessageEvent,
    MissingEvent,
    UnexplainedEvent,
    WeightEvent,
)
from dllama_proto.dissect.weight_resync import UNKNOWN_WEIGHTS
from dllama_proto.dissect.weight_search import WeightSearch
from dllama_proto.events import Ack, AckKind, WeightsEnd
from dllama_proto.limits import DEFAULT_LIMITS
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES
from tests.proto import configs
from tests.proto.dissect.rig import RootLink, said

_HEAD = next(data for _, data, event in said() if event == configs.WEIGHT)
#: Data that looks like no header, and like no end of the weights.
_DATA = random.Random(1).randbytes(configs.WEIGHT.n_bytes)
_CONTROL = [(role, data) for role, data, _ in said()[13:14]]


def _at_weights() -> RootLink:
    """Return a link that has come to the weights."""
    link = RootLink()
    for role, data, event in said():
        if event == configs.WEIGHT:
            break
        link.say(role, data)
    assert link.halves[Role.ROOT].link.phase is Phase.WEIGHTS
    return link


def _say_in_parts(link: RootLink, data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    for start in range(len(edges) - 1):
        link.say(Role.ROOT, data[edges[start] : edges[start + 1]])


_CUTS = st.lists(st.integers(0, 200), max_size=8)


@given(_CUTS, st.integers(0, 20))
def test_the_next_header_is_read_as_if_nothing_had_been_lost(cuts: list[int], n_kept: int) -> None:
    """The rig checks every byte, and the times of each event's first and last: also of a header in parts."""
    link = _at_weights()
    link.say(Role.ROOT, _HEAD[:n_kept])
    link.lose(Role.ROOT, len(_HEAD) - n_kept)
    _say_in_parts(link, _DATA + _HEAD + _DATA + WEIGHTS_END_BYTES, cuts)
    link.say(Role.WORKER, ACK_BYTES)
    link.say(*_CONTROL[0])
    link.finish()
    [piece] = link.of_type(WeightEvent)
    assert (piece.header, piece.missing, piece.data_size) == (configs.WEIGHT, 0, len(_DATA))
    messages = [event.message for event in link.of_type(MessageEvent)]
    assert messages[-3:] == [WeightsEnd(), Ack(AckKind.WEIGHTS), configs.CONTROL]
    assert {event.reason for event in link.of_type(UnexplainedEvent)} == {UNKNOWN_WEIGHTS}
    assert sum(event.size for event in link.of_type(UnexplainedEvent)) == n_kept + len(_DATA)


@given(_CUTS)
def test_the_end_of_the_weights_is_known_once_the_worker_has_them(cuts: list[int]) -> None:
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD))
    _say_in_parts(link, _DATA + WEIGHTS_END_BYTES, cuts)
    link.say(Role.WORKER, ACK_BYTES)
    link.say(*_CONTROL[0])
    link.finish()
    end, ack, control = link.of_type(MessageEvent)[-3:]
    assert (end.message, ack.message, control.message) == (
        WeightsEnd(),
        Ack(AckKind.WEIGHTS),
        configs.CONTROL,
    )
    [unexplained] = link.of_type(UnexplainedEvent)
    assert unexplained.size == len(_DATA)
    assert unexplained.offset + unexplained.size == end.offset


def test_an_end_of_the_weights_that_was_lost_is_taken_for_said() -> None:
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD) + len(_DATA) + len(WEIGHTS_END_BYTES))
    link.say(Role.WORKER, ACK_BYTES)
    link.say(*_CONTROL[0])
    link.finish()
    ack, control = link.of_type(MessageEvent)[-2:]
    assert (ack.message, control.message) == (Ack(AckKind.WEIGHTS), configs.CONTROL)
    assert link.of_type(UnexplainedEvent) == []
    # Not when the epoch began: nothing was looked at before it.
    assert control.began == control.time == link.time


def test_data_that_is_gone_over_is_not_held() -> None:
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD))
    for _ in range(40):
        link.say(Role.ROOT, _DATA)
    resync = link.decoder._resync
    assert resync is not None
    assert sum(len(chunk.view) for chunk in resync._held) < len(_HEAD)
    link.finish()
    assert [event.size for event in link.of_type(UnexplainedEvent)] == [40 * len(_DATA)]


def test_two_gaps_make_two_runs() -> None:
    link = _at_weights()
    link.lose(Role.ROOT, 5)
    link.say(Role.ROOT, _DATA)
    link.lose(Role.ROOT, 7)
    # The beginning of a header before a gap is none.
    link.say(Role.ROOT, _DATA + _HEAD[:-3])
    link.lose(Role.ROOT, 3)
    link.say(Role.ROOT, _HEAD + _DATA)
    link.finish()
    assert [
        (e.offset - link.of_type(MissingEvent)[0].offset, e.size) for e in link.of_type(UnexplainedEvent)
    ] == [
        (5, len(_DATA)),
        (12 + len(_DATA), len(_DATA) + len(_HEAD) - 3),
    ]
    assert [event.header for event in link.of_type(WeightEvent)] == [configs.WEIGHT]


@given(_CUTS, st.booleans())
def test_a_root_that_ends_meanwhile_is_counted_once(cuts: list[int], says_end: bool) -> None:
    """What was held back is told when the root's direction ends, and is no message afterwards."""
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD))
    _say_in_parts(link, _DATA + (WEIGHTS_END_BYTES if says_end else b""), cuts)
    link.end(Role.ROOT)
    link.say(Role.WORKER, ACK_BYTES)
    link.end(Role.WORKER)
    link.finish()
    assert [event.stream for event in link.of_type(ClosedEvent)] == list(link.streams)
    assert sum(event.size for event in link.of_type(UnexplainedEvent)) == len(_DATA) + 4 * says_end
    assert link.of_type(MessageEvent)[-1].message == Ack(AckKind.WEIGHTS)


@given(_CUTS, st.integers(0, 60))
def test_a_capture_that_ends_meanwhile_leaves_nothing_out(cuts: list[int], n: int) -> None:
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD))
    _say_in_parts(link, (_DATA + _HEAD)[: n + 1], cuts)
    link.finish()
    assert link.streams[0].unexplained + link.streams[0].missing >= len(_HEAD)


def test_what_the_root_says_after_the_worker_has_all_weights_is_no_weight() -> None:
    """A gap is given up only after the worker's ack and the next control packet were captured."""
    link = _at_weights()
    link.say(Role.WORKER, ACK_BYTES)
    # The control packet waits behind the gap.
    link.direction(Role.ROOT)._ahead.append((0, 0, memoryview(b""), 0))
    link.lose(Role.ROOT, len(_HEAD) + len(_DATA) + len(WEIGHTS_END_BYTES))
    assert link.halves[Role.WORKER].ready == len(ACK_BYTES)
    link.direction(Role.ROOT)._ahead.clear()
    link.say(*_CONTROL[0])
    link.finish()
    messages = [event.message for event in link.of_type(MessageEvent)]
    assert messages[-2:] == [Ack(AckKind.WEIGHTS), configs.CONTROL]
    assert link.of_type(UnexplainedEvent) == []


def test_an_ack_is_not_believed_while_more_of_the_root_waits_behind_a_gap() -> None:
    link = _at_weights()
    link.lose(Role.ROOT, len(_HEAD))
    link.direction(Role.ROOT)._ahead.append((0, 0, memoryview(b""), 0))
    link.say(Role.WORKER, ACK_BYTES)
    assert link.halves[Role.WORKER].ready == 4
    link.direction(Role.ROOT)._ahead.clear()
    link.say(Role.ROOT, _HEAD + _DATA + WEIGHTS_END_BYTES)
    link.finish()


def test_names_in_the_data_do_not_mislead() -> None:
    """A header whose range lies outside of its weight is data."""
    wrong = _HEAD[:-8] + (10**9).to_bytes(8, "little")
    link = _at_weights()
    link.lose(Role.ROOT, 10)
    link.say(Role.ROOT, wrong + _DATA + _HEAD + _DATA)
    link.finish()
    assert [event.header for event in link.of_type(WeightEvent)] == [configs.WEIGHT]
    assert [event.size for event in link.of_type(UnexplainedEvent)] == [len(wrong) + len(_DATA)]


def test_without_a_configuration_nothing_is_taken_for_a_header() -> None:
    search = WeightSearch({}, DEFAULT_LIMITS)
    assert search.look(_HEAD + bytes(100)) is None
    assert search.end()[1]
