"""The dialogue kit: whole sessions between puppets, what a script notices, and real nodes on the other side."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dllama_proto.connection import Phase, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.errors import LocalProtocolError
from dllama_proto.events import Ack, AckKind, Closed, Event, PayloadChunk, SliceData, WeightsEnd
from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal
from dllama_proto.testing import (
    Close,
    Expect,
    Puppet,
    ScriptError,
    Send,
    SendBytes,
    Step,
    bytewise,
    converse,
    puppet_root,
    puppet_worker,
    replay,
    script_of,
    session_dialogue,
)
from dllama_worker import ClusterOptions, Root, Worker
from dllama_worker.errors import PeerLost
from dllama_worker.report import Report
from dllama_worker.root.session import plan_session
from dllama_worker.sharding.pieces import node_weight_pieces
from tests.helpers.captures import CASES, load
from tests.helpers.reports import Collected
from tests.proto import configs
from tests.proto.stages import SCRIPT

TIMEOUT = 30.0

PAIRS = [case for case in CASES if load(case).n_nodes == 2]

DIALOGUE = session_dialogue(
    configs.GREETING, configs.NET, configs.NODE, [(configs.WEIGHT, bytes(range(36)))], [configs.CONTROL]
)


def said_by(role: Role) -> list[Event]:
    return [said.event for said in DIALOGUE if said.role is role]


# Puppets among themselves ---------------------------------------------------------------------------


def test_a_root_and_a_worker_say_a_whole_session() -> None:
    root, worker = puppet_root(DIALOGUE), puppet_worker(DIALOGUE)
    converse(root, worker)
    for puppet in (root, worker):
        puppet.finish()
        assert puppet.connection.phase is Phase.CLOSED
    assert root.heard == said_by(Role.WORKER)
    assert worker.heard == said_by(Role.ROOT)


@pytest.mark.parametrize("case", PAIRS)
def test_a_recorded_session_is_said_again(case: str) -> None:
    session = load(case)
    from_root, from_worker = session.data(0, 1), session.data(1, 0)
    dialogue = replay(from_root, from_worker).dialogue
    root, worker = puppet_root(dialogue), puppet_worker(dialogue)
    converse(root, worker)
    root.finish()
    worker.finish()
    kinds = {type(said.event) for said in dialogue}
    assert kinds >= {
        Greeting,
        Ack,
        NetConfig,
        NodeConfig,
        PayloadChunk,
        WeightsEnd,
        ControlPacket,
        SliceData,
    }


def test_a_dialogue_is_the_same_however_the_bytes_are_cut() -> None:
    session = load("tiny-q40-2n")
    data = session.data(0, 1)[:9000], session.data(1, 0)[:12]
    one = replay(*data, has_ended=False).dialogue
    assert replay(*data, cut=bytewise, has_ended=False).dialogue == one
    assert len(one) > 9


def test_bytes_may_come_one_by_one() -> None:
    root, worker = puppet_root(DIALOGUE), puppet_worker(DIALOGUE)
    while not (root.is_done and worker.is_done):
        for speaker, listener in ((root, worker), (worker, root)):
            for byte in speaker.advance():
                listener.receive_data(bytes([byte]))
                assert listener.n_wanted > 0
    assert worker.heard == said_by(Role.ROOT)


# What a script notices ------------------------------------------------------------------------------


def run(script: list[Step], *heard: bytes | None, role: Role = Role.ROOT) -> Puppet:
    """Take a script while the other side says these bytes; None is the end."""
    puppet = Puppet(role, script)
    puppet.advance()
    for data in heard:
        if data is None:
            puppet.receive_eof()
        else:
            puppet.receive_data(data)
        puppet.advance()
    return puppet


ACK = bytes.fromhex("aaaa6701")
GREET: list[Step] = [Send(Greeting(1, 0, ())), Expect(Ack)]


def test_another_event_than_expected() -> None:
    with pytest.raises(ScriptError, match=r"root, step 2 of 2, expect WeightsEnd: got Ack\(kind="):
        run([GREET[0], Expect(WeightsEnd)], ACK)
    with pytest.raises(ScriptError, match=r"expect Ack.*WEIGHTS.*: got Ack.*GREETING"):
        run([GREET[0], Expect(Ack(AckKind.WEIGHTS))], ACK)


def test_a_hang_up_instead_of_an_event() -> None:
    with pytest.raises(
        ScriptError, match=r"step 2 of 2, expect Ack: got Closed\(phase=<Phase.GREETING_ACK"
    ):
        run(GREET, None)


def test_bytes_that_break_the_protocol() -> None:
    with pytest.raises(ScriptError, match=r"the other side broke the protocol: Ack\(GREETING\) at byte 0"):
        run(GREET, b"HTTP")


def test_steps_that_are_left_and_events_that_are_too_many() -> None:
    with pytest.raises(ScriptError, match="step 2 of 2, expect Ack: got nothing more"):
        run(GREET, ACK[:3]).finish()
    greeting = bytes.fromhex("0100000000000000")
    with pytest.raises(ScriptError, match="the script of 0 steps is over, but got Greeting"):
        run([], greeting, role=Role.WORKER).finish()
    run(GREET, ACK).finish()


def test_a_hang_up_can_be_expected_in_ones_own_turn() -> None:
    puppet = run([*GREET, Expect(Closed)], ACK, None)
    puppet.finish()
    assert puppet.heard == [Ack(AckKind.GREETING), Closed(Phase.ROOT_READY)]


def test_what_the_protocol_forbids_can_be_said_as_bytes_only() -> None:
    with pytest.raises(LocalProtocolError, match="expected GREETING to be sent"):
        run([Send(WeightsEnd())])
    assert Puppet(Role.ROOT, [SendBytes(b"any"), SendBytes(b"thing")]).advance() == b"anything"


def test_closing_is_told_to_the_other_end() -> None:
    root = Puppet(Role.ROOT, [GREET[0], Close(), Expect(Closed)])
    worker = Puppet(Role.WORKER, [Expect(Greeting), Expect(Closed), Close()])
    converse(root, worker)
    root.finish()
    worker.finish()


def test_slices_may_hold_other_numbers_where_that_is_said() -> None:
    script = [(said.role, said.event) for said in DIALOGUE]
    assert [role for role, _ in script] == [role for role, _ in SCRIPT]  # whose numbers are others
    others = [type(said)(*pair) for said, pair in zip(DIALOGUE, SCRIPT, strict=True)]
    converse(puppet_root(DIALOGUE, same_values=False), puppet_worker(others, same_values=False))
    with pytest.raises(ScriptError, match=r"worker, step \d+ of \d+, expect SliceData"):
        converse(puppet_root(DIALOGUE), puppet_worker(others))


def test_own_slices_go_before_the_others_are_waited_for() -> None:
    steps = script_of(DIALOGUE, Role.WORKER)
    slices = [step for step in steps if isinstance(getattr(step, "event", None), SliceData)]
    expected = [step for step in steps if isinstance(getattr(step, "what", None), SliceData)]
    assert slices
    assert expected
    assert steps.index(slices[-1]) < steps.index(expected[0])


# A real worker --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", ["tiny-q40-2n", "llama31-q40-2n"])
def test_our_worker_says_what_the_cpp_worker_said(case: str) -> None:
    """Every ack and slice in its place; the numbers are compared elsewhere."""
    session = load(case)
    dialogue = replay(session.data(0, 1), session.data(1, 0)).dialogue
    with Worker(port=0) as worker:
        worker.start()
        with socket.create_connection((worker.address.host, worker.address.port), timeout=TIMEOUT) as sock:
            puppet = puppet_root(dialogue, same_values=False)
            heard = puppet.run(sock.recv, sock.sendall)
    assert len(heard) == len([said for said in dialogue if said.role is Role.WORKER])


def test_our_worker_refuses_nonsense_and_serves_on() -> None:
    report = Collected()
    nonsense = [*GREET, SendBytes(b"GET / HTTP/1.1\r\n"), Expect(Refusal)]
    with Worker(port=0, report=report) as worker:
        worker.start()
        for _ in range(2):
            with socket.create_connection(
                (worker.address.host, worker.address.port), timeout=TIMEOUT
            ) as sock:
                puppet = Puppet(Role.ROOT, nonsense)
                puppet.run(sock.recv, sock.sendall)
                puppet.finish()


# A real root ----------------------------------------------------------------------------------------


@contextmanager
def listening(puppet: Puppet) -> Iterator[Endpoint]:
    """Let a puppet worker serve one root; its errors are raised at the end."""
    failures: list[BaseException] = []

    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(TIMEOUT)
            try:
                puppet.run(sock.recv, sock.sendall, lambda: sock.shutdown(socket.SHUT_WR))
            except BaseException as error:
                failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield Endpoint.of_socket(listener.getsockname())
        finally:
            thread.join(TIMEOUT)
    if failures:
        raise failures[0]


@pytest.mark.slow
def test_our_root_generates_with_a_worker_that_only_pretends() -> None:
    plan = plan_session(ClusterOptions(workers=(Endpoint("127.0.0.1", 9),)), Report())
    pieces = node_weight_pieces(plan.model.header, plan.partition, 1)
    prompt = plan.tokenizer.encode("ROMEO:")
    dialogue = session_dialogue(
        Greeting(1, 0, ()),
        plan.layout.net,
        plan.layout.nodes[1],
        [(piece.header, bytes(piece.data(plan.model))) for piece in pieces],
        [ControlPacket(0, len(prompt)), ControlPacket(len(prompt), 1)],
    )
    worker = puppet_worker(dialogue, same_values=False)
    with listening(worker) as address, Root(workers=[address]) as root:
        assert len(list(root.generate("ROMEO:", max_tokens=2).token_ids())) == 2
    worker.finish()


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ([Close()], "closed the connection before its Ack"),
        ([Expect(Greeting), SendBytes(b"HTTP/1.1")], r"Ack\(GREETING\)"),
        (
            [
                Expect(Greeting), Send(Ack(AckKind.GREETING)), Expect(Ack), Expect(Ack), Expect(NetConfig),
                Close(),
            ],
            "closed the connection before its Ack",
        ),
    ],
)  # fmt: skip
def test_our_root_names_a_worker_that_goes(script: list[Any], complaint: str) -> None:
    puppet = Puppet(Role.WORKER, script)
    with listening(puppet) as address, pytest.raises(Exception, match=complaint) as caught:
        Root(workers=[address]).open()
    if isinstance(caught.value, PeerLost):
        assert f"node 1 ({address})" in str(caught.value)
