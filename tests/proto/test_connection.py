"""Connections: whose turn it is, payloads that pass them by, and ends of streams."""

from __future__ import annotations

from typing import Any

import pytest

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from dllama_proto.events import (
    NEED_DATA,
    PAUSED,
    Ack,
    AckKind,
    Closed,
    Event,
    PayloadChunk,
    SliceData,
    WeightsEnd,
)
from dllama_proto.formatting import counted
from dllama_proto.messages import ControlPacket, WeightHeader
from dllama_proto.peer import PeerConnection
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.wire import build_exactly
from dllama_proto.sync_plan import plan_link
from tests.proto import configs
from tests.proto.stages import PHASES, SCRIPT, Pair, slices

_MESSAGES = [event for _, event in SCRIPT if not isinstance(event, PayloadChunk | SliceData)]
_PEER_PLAN = plan_link(configs.NET, configs.NODE, 1)


def _bytes(message: Any) -> bytes:
    return build_exactly(MESSAGES[type(message)], message, "Message")


# Turns ----------------------------------------------------------------------------------------------


def test_a_whole_session() -> None:
    pair = Pair()
    for role, event in SCRIPT:
        assert pair.say(role, event) == event
    for end in pair.ends.values():
        assert end.phase is Phase.CLOSED
        assert end.next_event() is NEED_DATA
        end.receive_eof()
        assert end.next_event() == Closed(Phase.CLOSED)
        assert end.next_event() == Closed(Phase.CLOSED)


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_lets_one_side_say_what_is_due_and_nothing_else(phase: Phase) -> None:
    due = [(role, event) for role, event in SCRIPT if _said_in(role, event) is phase]
    for role in Role:
        for event in _MESSAGES:
            end = Pair().advance_to(phase).ends[role]
            if (role, event) in due:
                assert end.is_our_turn
                assert len(end.send(event)) > 0
            else:
                with pytest.raises(LocalProtocolError) as caught:
                    end.send(event)
                assert end.phase is phase
                assert caught.value.path == phase.name


def _said_in(role: Role, event: Event) -> Phase | None:
    pair = Pair()
    for said_by, said in SCRIPT:
        if (said_by, said) == (role, event):
            return pair.root.phase
        pair.say(said_by, said)
    return None


@pytest.mark.parametrize("phase", PHASES)
def test_whoever_is_to_speak_is_paused(phase: Phase) -> None:
    pair = Pair().advance_to(phase)
    for end in pair.ends.values():
        if end.is_our_turn:
            assert (end.next_event(), end.n_wanted) == (PAUSED, 0)
        elif phase is not Phase.WEIGHT_DATA or end is pair.worker:
            assert end.next_event() is NEED_DATA
            assert end.n_wanted > 0


def test_what_came_too_early_waits_for_our_turn() -> None:
    worker = Pair().advance_to(Phase.NET_CONFIG).worker
    worker.receive_data(_bytes(configs.NET) + bytes.fromhex("aaaa6701"))
    assert worker.next_event() == configs.NET
    assert worker.next_event() is PAUSED
    worker.send(Ack(AckKind.NET_CONFIG))
    assert worker.next_event() == Ack(AckKind.NODE_CONFIG_AHEAD)


def test_acks_are_named_by_whoever_sends_them() -> None:
    worker = Pair().advance_to(Phase.GREETING_ACK).worker
    with pytest.raises(LocalProtocolError, match="expected Ack GREETING, got WEIGHTS"):
        worker.send(Ack(AckKind.WEIGHTS))
    assert worker.send(Ack(AckKind.GREETING)) == bytes.fromhex("aaaa6701")


def test_only_messages_can_be_sent() -> None:
    with pytest.raises(LocalProtocolError, match="expected a message, got Closed"):
        Pair().root.send(Closed(Phase.IDLE))


# Weights --------------------------------------------------------------------------------------------


def test_a_root_may_send_no_weights() -> None:
    pair = Pair().advance_to(Phase.WEIGHTS)
    assert pair.say(Role.ROOT, WeightsEnd()) == WeightsEnd()
    assert pair.worker.is_our_turn


def test_an_empty_piece_has_no_payload() -> None:
    pair = Pair().advance_to(Phase.WEIGHTS)
    header = WeightHeader("weighted", 0, 6912, 0)
    for _ in range(2):
        assert pair.say(Role.ROOT, header) == header
        assert (pair.root.unsent_size, pair.worker.payload_size) == (0, 0)
        assert pair.worker.phase is pair.root.phase is Phase.WEIGHTS


def test_a_piece_arrives_in_chunks_that_share_the_callers_memory() -> None:
    worker = Pair().advance_to(Phase.WEIGHTS).worker
    worker.receive_data(_bytes(configs.WEIGHT))
    assert worker.next_event() == configs.WEIGHT
    assert worker.payload_size == worker.n_wanted == 36
    first, rest = bytes(range(10)), bytes(range(10, 36)) + b"next"
    worker.receive_data(first)
    chunk = worker.next_event()
    assert chunk == PayloadChunk(18, memoryview(first))
    assert isinstance(chunk, PayloadChunk)
    assert chunk.data.obj is first
    assert worker.n_wanted == 26
    worker.receive_data(rest)
    chunk = worker.next_event()
    assert isinstance(chunk, PayloadChunk)
    assert (chunk.offset, chunk.data.tobytes(), chunk.data.obj) == (28, rest[:26], rest)
    assert worker.phase is Phase.WEIGHTS


def test_memory_that_can_change_is_copied() -> None:
    worker = Pair().advance_to(Phase.WEIGHT_DATA).worker
    data = bytearray(36)
    worker.receive_data(data)
    data[:] = b"x" * 36
    chunk = worker.next_event()
    assert isinstance(chunk, PayloadChunk)
    assert chunk.data == bytes(36)


def test_a_payload_is_taken_then_received_by_the_caller() -> None:
    worker = Pair().advance_to(Phase.WEIGHTS).worker
    worker.receive_data(_bytes(configs.WEIGHT) + b"abc")
    worker.receive_data(b"def")
    assert worker.next_event() == configs.WEIGHT
    memory = bytearray(36)
    view = memoryview(memory)
    with pytest.raises(LocalProtocolError, match="expected take_payload first, got 6 bytes"):
        worker.payload_received(1)
    assert worker.take_payload(view[:4]) == 4
    assert worker.take_payload(view[4:]) == 2
    assert memory[:7] == b"abcdef\0"
    assert worker.payload_size == 30
    with pytest.raises(LocalProtocolError, match="expected at most 30 payload bytes, got 31"):
        worker.payload_received(31)
    with pytest.raises(LocalProtocolError, match="got -1"):
        worker.payload_received(-1)
    worker.payload_received(29)
    assert worker.payload_size == 1
    worker.payload_received(1)
    assert worker.phase is Phase.WEIGHTS


def test_no_more_is_taken_than_the_payload() -> None:
    worker = Pair().advance_to(Phase.WEIGHT_DATA).worker
    worker.receive_data(bytes(36) + bytes(4))
    assert worker.take_payload(memoryview(bytearray(100))) == 36
    assert worker.next_event() == WeightsEnd()
    assert worker.take_payload(memoryview(bytearray(100))) == 0


def test_a_root_counts_what_it_owes() -> None:
    root = Pair().advance_to(Phase.WEIGHT_DATA).root
    with pytest.raises(LocalProtocolError, match="expected at most 36 payload bytes, got 37"):
        root.payload_sent(37)
    with pytest.raises(LocalProtocolError, match="expected PAYLOAD_DONE to be sent, got WeightsEnd"):
        root.send(WeightsEnd())
    root.payload_sent(30)
    assert root.unsent_size == 6
    for wrong in (PayloadChunk(0, memoryview(b"a")), PayloadChunk(48, memoryview(bytes(7)))):
        with pytest.raises(LocalProtocolError, match=r"expected weight 'weighted' of index 0, byte 48"):
            root.send(wrong)
    rest = memoryview(bytes(6))
    assert root.send(PayloadChunk(48, rest)) is rest
    assert root.phase is Phase.WEIGHTS
    assert root.send(WeightsEnd()) == bytes(4)


# Slices ---------------------------------------------------------------------------------------------


def test_slices_flow_both_ways_in_any_interleaving() -> None:
    pair = Pair().advance_to(Phase.SLICES)
    spoken = slices()
    by_role = {role: [event for said_by, event in spoken if said_by is role] for role in Role}
    sizes = {
        role: sum(len(event.data) for event in events if isinstance(event, SliceData))
        for role, events in by_role.items()
    }
    assert pair.worker.payload_size == pair.root.unsent_size == sizes[Role.ROOT]
    assert pair.root.payload_size == pair.worker.unsent_size == sizes[Role.WORKER]
    while any(by_role.values()):
        for role in (Role.WORKER, Role.ROOT):
            if by_role[role]:
                event = by_role[role].pop(0)
                assert pair.say(role, event) == event
    assert pair.worker.phase is pair.root.phase is Phase.IDLE


def test_the_next_packet_waits_until_both_ways_are_done() -> None:
    pair = Pair().advance_to(Phase.SLICES)
    worker = pair.worker
    worker.payload_received(worker.payload_size)
    worker.receive_data(_bytes(ControlPacket(4, 1)))
    assert worker.next_event() is PAUSED
    worker.payload_sent(worker.unsent_size)
    assert worker.next_event() == ControlPacket(4, 1)


def test_slices_are_sent_in_the_order_of_the_plan() -> None:
    pair = Pair().advance_to(Phase.SLICES)
    mine = [event for role, event in slices() if role is Role.WORKER]
    with pytest.raises(LocalProtocolError, match=r"expected segments\[1\]\.syncs\[0\] from node 2, row 0"):
        pair.worker.send(mine[1])
    pair.worker.send(mine[0])
    with pytest.raises(LocalProtocolError, match=r"row 1"):
        pair.worker.send(mine[0])


def test_a_slice_is_taken_whole_or_returned_whole() -> None:
    worker = Pair().advance_to(Phase.SLICES).worker
    worker.receive_data(bytes(300))
    assert worker.take_payload(memoryview(bytearray(3))) == 3
    with pytest.raises(LocalProtocolError, match="expected the slice's other 253 bytes"):
        worker.next_event()
    assert worker.take_payload(memoryview(bytearray(253))) == 253
    assert worker.next_event() is NEED_DATA
    assert worker.n_wanted == 256 - 44


def test_a_slice_that_came_in_one_chunk_is_not_copied() -> None:
    worker = Pair().advance_to(Phase.SLICES).worker
    data = bytes(256)
    worker.receive_data(data)
    event = worker.next_event()
    assert isinstance(event, SliceData)
    assert event.data.obj is data


# Peers ----------------------------------------------------------------------------------------------


def test_peers_exchange_the_slices_of_each_forward() -> None:
    here, there = PeerConnection(_PEER_PLAN), PeerConnection(_PEER_PLAN.reversed())
    for batch_size in (2, 1):
        for end in (here, there):
            assert end.next_event() is PAUSED
            end.begin_forward(batch_size)
        for one, other in ((here, there), (there, here)):
            for transfer in one.plan.sends:
                for row in range(batch_size):
                    event = SliceData(transfer, row, memoryview(bytes([row]) * transfer.size))
                    other.receive_data(one.send(event))
                    assert other.next_event() == event
        assert here.phase is there.phase is Phase.IDLE
    for end in (here, there):
        end.receive_eof()
        assert end.next_event() == Closed(Phase.IDLE)


def test_a_peer_may_be_ahead() -> None:
    here = PeerConnection(_PEER_PLAN)
    size = sum(transfer.size for transfer in _PEER_PLAN.receives)
    here.receive_data(bytes(2 * size))
    assert (here.next_event(), here.n_wanted) == (PAUSED, 0)
    here.begin_forward(1)
    view = memoryview(bytearray(2 * size))
    assert here.take_payload(view) == size
    with pytest.raises(LocalProtocolError, match="the last one being over"):
        here.begin_forward(1)
    here.payload_sent(here.unsent_size)
    here.begin_forward(1)
    assert here.take_payload(view) == size


def test_a_forward_has_rows() -> None:
    with pytest.raises(LocalProtocolError):
        PeerConnection(_PEER_PLAN).begin_forward(0)


def test_peers_without_common_syncs_are_done_at_once() -> None:
    plan = plan_link(configs.NET, configs.NODE, 1)
    silent = PeerConnection(type(plan)(plan.node_index, plan.peer, (), ()))
    silent.begin_forward(4)
    assert silent.phase is Phase.IDLE


# Ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [phase for phase in PHASES if phase not in (Phase.WEIGHT_DATA, Phase.SLICES)]
)
def test_a_stream_that_ends_between_messages_is_closed(phase: Phase) -> None:
    for end in Pair().advance_to(phase).ends.values():
        end.receive_eof()
        assert end.next_event() == Closed(phase)


@pytest.mark.parametrize("message", [configs.GREETING, configs.NET, configs.WEIGHT, configs.CONTROL])
def test_a_stream_that_ends_within_a_message_says_where(message: Any) -> None:
    data = _bytes(message)
    phase = _said_in(Role.ROOT, message)
    assert phase is not None
    for cut in range(1, len(data)):
        worker = Pair().advance_to(phase).worker
        worker.receive_data(data[:cut])
        assert worker.next_event() is NEED_DATA
        wanted = worker.n_wanted
        worker.receive_eof()
        with pytest.raises(RemoteProtocolError) as caught:
            worker.next_event()
        assert caught.value.path.startswith(type(message).__name__)
        assert caught.value.offset == cut
        assert caught.value.expected == counted(wanted, "more byte")
        assert caught.value.got == "the end of the stream"


def test_a_config_that_ends_within_an_op_names_the_op() -> None:
    worker = Pair().advance_to(Phase.NODE_CONFIG).worker
    data = _bytes(configs.NODE)
    worker.receive_data(data[:-1])
    worker.receive_eof()
    with pytest.raises(RemoteProtocolError) as caught:
        worker.next_event()
    assert caught.value.path == "NodeConfig.segments[1].ops[17].config"
    assert caught.value.offset == len(data) - 1


def test_an_ack_that_is_cut() -> None:
    root = Pair().advance_to(Phase.GREETING_ACK).root
    root.receive_data(b"\xaa\xaa")
    root.receive_eof()
    with pytest.raises(RemoteProtocolError, match=r"Ack\(GREETING\) at byte 2: expected 2 more bytes"):
        root.next_event()


def test_a_piece_of_a_weight_that_is_cut() -> None:
    worker = Pair().advance_to(Phase.WEIGHT_DATA).worker
    worker.receive_data(bytes(6))
    worker.receive_eof()
    assert isinstance(worker.next_event(), PayloadChunk)
    with pytest.raises(
        RemoteProtocolError, match="weight 'weighted' of index 0, byte 24: expected 30 more"
    ):
        worker.next_event()


def test_slices_that_are_cut() -> None:
    worker = Pair().advance_to(Phase.SLICES).worker
    worker.receive_data(bytes(256 + 5))
    worker.receive_eof()
    assert isinstance(worker.next_event(), SliceData)
    with pytest.raises(RemoteProtocolError) as caught:
        worker.next_event()
    assert caught.value.path == "segments[0].syncs[0] from node 0, row 1"
    assert caught.value.expected == "251 more bytes"


def test_nothing_follows_a_stop() -> None:
    worker = Pair().advance_to(Phase.CLOSED).worker
    worker.receive_data(b"more")
    with pytest.raises(RemoteProtocolError, match="expected nothing after a stop packet, got 4 bytes"):
        worker.next_event()


def test_nothing_follows_the_end() -> None:
    worker = Connection(Role.WORKER)
    worker.receive_eof()
    with pytest.raises(LocalProtocolError, match="expected nothing after the end"):
        worker.receive_data(b"x")


def test_a_broken_link_stays_broken() -> None:
    worker = Connection(Role.WORKER)
    worker.receive_data(_bytes(configs.GREETING)[:8] + bytes(4))
    errors = []
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            worker.next_event()
        errors.append(caught.value)
    assert errors[0] is errors[1]
    assert worker.phase is Phase.BROKEN
    assert (worker.n_wanted, worker.payload_size, worker.unsent_size, worker.is_our_turn) == (
        0,
        0,
        0,
        False,
    )
    with pytest.raises(LocalProtocolError, match="BROKEN: expected nothing to be sent"):
        worker.send(Ack(AckKind.GREETING))


def test_errors_say_whose_fault_it_is() -> None:
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
