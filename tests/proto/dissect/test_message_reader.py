"""The reader of messages: whole ones with their bytes and times, broken ones reported once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.dissect.account import NOTHING
from dllama_proto.dissect.events import FaultEvent, UnexplainedEvent, WireEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.message_reader import MessageBytes, MessageReader
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import NEED_DATA, PAUSED
from tests.proto import configs
from tests.proto.dissect.rig import account, half_of, said
from tests.proto.stages import Pair

_GREETING = said()[0][1]
_NET = next(data for _, data, event in said() if event == configs.NET)


def _reader(phase: Phase = Phase.GREETING) -> tuple[MessageReader, Half[Connection], list[WireEvent]]:
    """Return the reader of what the root says from a phase on."""
    kept, events = account()
    half = half_of(Pair().advance_to(phase).worker, kept)
    return MessageReader(half, kept), half, events


@given(st.lists(st.integers(1, len(_NET) - 1), max_size=6, unique=True).map(sorted))
def test_a_message_has_its_bytes_and_times_however_it_is_cut(cuts: list[int]) -> None:
    reader, half, events = _reader(Phase.NET_CONFIG)
    edges = [0, *cuts, len(_NET)]
    for time, (start, stop) in enumerate(itertools.pairwise(edges), start=1):
        half.data(time, memoryview(_NET[start:stop]))
        event = reader.read()
        assert event == (configs.NET if stop == len(_NET) else NEED_DATA)
    assert reader.whole() == MessageBytes(0, memoryview(_NET), 1, len(edges) - 1)
    assert (half.pending, half.offset, events) == (0, len(_NET), [])
    # All of it has been handed over: nothing is left to be given up.
    reader.give_up("why")
    assert events == []


def test_no_byte_of_what_follows_is_taken() -> None:
    reader, half, _ = _reader()
    half.data(1, memoryview(_GREETING + b"next"))
    assert reader.read() == configs.GREETING
    assert reader.whole().raw == _GREETING
    # The worker acknowledges it before the root may go on.
    assert reader.read() is PAUSED
    assert half.ready == 4


def test_offsets_and_times_are_those_of_each_message() -> None:
    reader, half, _ = _reader(Phase.ROOT_READY)
    ready, ahead = (data for role, data, event in said()[2:4])
    half.data(5, memoryview(ready[:1]))
    half.data(6, memoryview(ready[1:] + ahead[:2]))
    half.data(9, memoryview(ahead[2:]))
    reader.read()
    assert reader.whole() == MessageBytes(0, memoryview(ready), 5, 6)
    reader.read()
    assert reader.whole() == MessageBytes(4, memoryview(ahead), 6, 9)


def test_bytes_captured_out_of_order_end_when_the_last_was_captured() -> None:
    reader, half, _ = _reader(Phase.NET_CONFIG)
    half.data(9, memoryview(_NET[:8]))
    reader.read()
    half.data(4, memoryview(_NET[8:]))
    assert reader.read() == configs.NET
    head = reader.whole()
    assert (head.began, head.time) == (9, 9)


def test_what_does_not_become_whole_is_reported_once_with_its_bytes() -> None:
    reader, half, events = _reader(Phase.NET_CONFIG)
    reader.give_up("nothing has come")
    assert events == []
    half.data(3, memoryview(_NET[:8]))
    reader.read()
    half.data(4, memoryview(_NET[8:13]))
    reader.read()
    n = half.offset
    # What waits is not the reader's.
    half.data(7, memoryview(b"x"))
    reader.give_up("why")
    reader.give_up("why")
    last = 4 if n > 8 else 3
    assert events == [UnexplainedEvent(last, 3, half.stream, 0, n, memoryview(_NET[:n]), "why")]
    assert half.stream.unexplained == n


def test_a_fault_names_the_byte_and_explains_nothing_of_its_message() -> None:
    reader, half, events = _reader()
    half.data(1, memoryview(b"\xff" * len(_GREETING)))
    with pytest.raises(RemoteProtocolError) as caught:
        reader.read()
    reader.fault(caught.value)
    fault, rest = events
    assert isinstance(fault, FaultEvent)
    assert (fault.path, fault.offset, fault.size) == ("Greeting.n_sockets", 0, 0)
    assert isinstance(rest, UnexplainedEvent)
    assert (rest.offset, rest.size) == (0, half.offset)
    assert rest.reason.startswith("it breaks the protocol: ")
    assert half.stream.unexplained == half.offset


def test_a_fault_without_a_place_is_where_its_message_begins() -> None:
    reader, half, events = _reader()
    half.data(1, memoryview(_GREETING))
    reader.read()
    reader.whole()
    error = RemoteProtocolError("Greeting", expected="a greeting", got="another")
    reader.fault(error)
    assert events == [
        FaultEvent(1, 1, half.stream, len(_GREETING), 0, NOTHING, "Greeting", "a greeting", "another", "")
    ]


def test_the_worker_says_nothing_before_the_root_has() -> None:
    kept, _ = account()
    half = half_of(Connection(Role.WORKER), kept).other
    half.data(1, memoryview(b"slice"))
    assert MessageReader(half, kept).read() is PAUSED
    assert half.ready == 5
