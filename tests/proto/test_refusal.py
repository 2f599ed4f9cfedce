"""A worker that cannot go on says why, until it is ready; the root hears it in its turn and out of it."""

from __future__ import annotations

import pytest

from dllama_proto._phases import REFUSAL_PHASES
from dllama_proto.connection import Phase, Role
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import NEED_DATA, PAUSED, Ack, AckKind, Closed
from dllama_proto.messages import Refusal
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.refusal import REFUSAL_BYTES
from tests.proto import configs
from tests.proto.stages import REFUSAL, Pair

_BUSY = bytes.fromhex("ee ee 67 01  05 00 00 00  62 75 73 79 00")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in REFUSAL_PHASES])
def test_the_root_reads_it_in_every_phase_before_the_worker_is_ready(phase: Phase) -> None:
    pair = Pair().advance_to(phase)
    assert pair.worker.may_refuse
    assert pair.say(Role.WORKER, REFUSAL) == REFUSAL
    assert pair.root.phase is pair.worker.phase is Phase.REFUSED
    pair.root.receive_eof()
    assert pair.root.next_event() == Closed(Phase.REFUSED)


@pytest.mark.parametrize("phase", [Phase.GREETING, Phase.IDLE, Phase.SLICES, Phase.CLOSED, Phase.REFUSED])
def test_no_other_phase_lets_a_worker_refuse(phase: Phase) -> None:
    worker = Pair().advance_to(phase).worker
    assert not worker.may_refuse
    with pytest.raises(LocalProtocolError):
        worker.send(REFUSAL)


def test_a_root_cannot_refuse() -> None:
    root = Pair().advance_to(Phase.NET_CONFIG).root
    assert not root.may_refuse
    with pytest.raises(LocalProtocolError):
        root.send(REFUSAL)


@pytest.mark.parametrize("phase", [Phase.GREETING_ACK, Phase.NODE_CONFIG, Phase.WEIGHT_DATA])
def test_it_may_come_byte_by_byte(phase: Phase) -> None:
    root = Pair().advance_to(phase).root
    waits = NEED_DATA if phase is Phase.GREETING_ACK else PAUSED
    for at in range(len(_BUSY) - 1):
        root.receive_data(_BUSY[at : at + 1])
        assert root.next_event() is (NEED_DATA if at >= 3 else waits)
    root.receive_data(_BUSY[-1:])
    assert root.next_event() == Refusal("busy")


def test_the_root_may_go_on_speaking_while_it_comes() -> None:
    pair = Pair().advance_to(Phase.NODE_CONFIG)
    pair.root.receive_data(_BUSY[:9])
    assert pair.root.next_event() is NEED_DATA
    pair.root.send(configs.NODE)
    pair.root.receive_data(_BUSY[9:])
    assert pair.root.next_event() == Refusal("busy")


def test_an_ack_that_comes_early_waits_for_its_turn() -> None:
    pair = Pair().advance_to(Phase.NET_CONFIG)
    pair.root.receive_data(ACK_BYTES)
    assert pair.root.next_event() is PAUSED
    pair.root.send(configs.NET)
    assert pair.root.next_event() == Ack(AckKind.NET_CONFIG)


def test_a_worker_may_refuse_what_breaks_the_protocol() -> None:
    worker = Pair().advance_to(Phase.NET_CONFIG).worker
    worker.receive_data(b"\xff" * 40)
    with pytest.raises(RemoteProtocolError):
        worker.next_event()
    assert worker.may_refuse
    assert bytes(worker.send(Refusal("no"))).startswith(REFUSAL_BYTES)


def test_nothing_may_follow_it() -> None:
    pair = Pair().advance_to(Phase.REFUSED)
    pair.root.receive_data(b"x")
    with pytest.raises(RemoteProtocolError, match="nothing after a refusal"):
        pair.root.next_event()


def test_the_stream_may_end_within_it() -> None:
    root = Pair().advance_to(Phase.GREETING_ACK).root
    root.receive_data(_BUSY[:-1])
    root.receive_eof()
    with pytest.raises(RemoteProtocolError, match="in the middle of a message"):
        root.next_event()


def test_no_ack_begins_as_it_does() -> None:
    assert REFUSAL_BYTES != ACK_BYTES
