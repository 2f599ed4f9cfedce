"""One session, phase by phase, with a root by script: what is answered, and how each phase can end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest

from dllama_ops.preference import Preferences
from dllama_ops.table import KernelTable
from dllama_proto.connection import Connection, Role
from dllama_proto.events import Ack, AckKind, WeightsEnd
from dllama_proto.sync_plan import plan_link
from dllama_worker.errors import ConfigRejected, InternalError, MachineError, PeerLost, WeightMismatch
from dllama_worker.monitoring.monitor import UNPROFILED, Monitor, WorkerPhase
from dllama_worker.node.channel import Channel
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.transport import Link
from dllama_worker.report import Report
from dllama_worker.worker import session as session_module
from dllama_worker.worker.network import NetworkClient
from dllama_worker.worker.options import WorkerOptions
from dllama_worker.worker.session import WorkerSession
from tests.helpers.captures import load
from tests.helpers.reports import Collected
from tests.worker.replay import read_recording

CASE = load("tiny-q40-2n")
RECORDING = read_recording(CASE, 1)
STREAM = CASE.stream(0, 1)
N_ACK_BYTES = 4
N_CONTROL_BYTES = 8

#: What the root sent before its first weight: the handshake and the configs.
N_CONFIG_BYTES = 8071


class ScriptedRoot:
    """A root that does as it is told: configs as messages, weights and forwards as they were recorded."""

    def __init__(self, stack: ExitStack, address: tuple[str, int]) -> None:
        self._stack = stack
        self.sock = stack.enter_context(socket.create_connection(address, timeout=30))
        self.channel = Channel(Link(self.sock, "the worker"), Connection(Role.ROOT))
        self.channel.link.set_deadline(30)

    def meanwhile(self, act: Callable[[], object]) -> threading.Thread:
        """Act in a thread, while the worker does something else."""
        thread = threading.Thread(target=act)
        thread.start()
        self._stack.callback(thread.join, 30)
        return thread

    def greet(self) -> None:
        self.channel.send(RECORDING.greeting)
        self.channel.expect(Ack)
        self.channel.send(Ack(AckKind.ROOT_READY))

    def send_net(self) -> None:
        self.channel.send(Ack(AckKind.NET_CONFIG_AHEAD))
        self.channel.send(RECORDING.net)
        self.channel.expect(Ack)

    def send_configs(self) -> None:
        self.send_net()
        self.channel.send(Ack(AckKind.NODE_CONFIG_AHEAD))
        self.channel.send(RECORDING.node)

    def configure(self) -> None:
        self.send_configs()
        self.channel.expect(Ack)

    def send_weights(self, n_bytes: int | None = None) -> threading.Thread:
        """Send the first so many bytes of all weights, or all."""
        weights = STREAM.data[N_CONFIG_BYTES : STREAM.bytes_before_inference]
        return self.send(weights[:n_bytes])

    def send_forwards(self, n: int | None = None) -> threading.Thread:
        """Send the root's part of the first ``n`` forwards, or of all and what stops them."""
        forwards = STREAM.data[STREAM.bytes_before_inference :]
        if n is not None:
            row_bytes = sum(t.size for t in plan_link(RECORDING.net, RECORDING.node, 0).receives)
            sizes = [N_CONTROL_BYTES + size * row_bytes for _, size in CASE.control_packets]
            forwards = forwards[: sum(sizes[:n])]
        return self.send(forwards)

    def send_stop(self) -> None:
        self.send(STREAM.data[-N_CONTROL_BYTES:])

    def send(self, data: bytes) -> threading.Thread:
        """Send in a thread: more than sockets hold may only go while the worker receives."""

        def send_all() -> None:
            with suppress(OSError):  # the worker may end the session before
                self.sock.sendall(data)

        return self.meanwhile(send_all)

    def receive_ack(self) -> None:
        assert self.sock.recv(N_ACK_BYTES, socket.MSG_WAITALL) == bytes.fromhex("aaaa6701")

    def receive_all(self) -> bytes:
        """Return what comes until the worker closes the connection."""
        heard = bytearray()
        while data := self.sock.recv(1 << 16):
            heard += data
        return bytes(heard)


class Stage:
    """A worker's session and its root, step by step; what was logged and counted."""

    def __init__(self, stack: ExitStack) -> None:
        self.report = Collected()
        self.monitor = Monitor()
        self.options = WorkerOptions(handshake_timeout=30.0, sync_timeout=30.0)
        self.table = choose_kernels("", Report())
        self.network = NetworkClient("127.0.0.1", 0, report=self.report)
        stack.callback(self.network.close)
        self.root = ScriptedRoot(stack, self.network.listen())

    def connected(self) -> WorkerSession:
        greeting_root = self.root.meanwhile(self.root.greet)
        greeting = self.network.connect()
        greeting_root.join(30)
        self.monitor.begin_session(self.network.links)
        return WorkerSession(self.network, greeting, self.options, self.table, self.report, self.monitor)

    def configured(self, session: WorkerSession | None = None) -> WorkerSession:
        session = session or self.connected()
        configuring = self.root.meanwhile(self.root.configure)
        session.configure()
        configuring.join(30)
        return session

    def loaded(self) -> WorkerSession:
        session = self.configured()
        self.root.send_weights()
        session.load_weights()
        self.root.receive_ack()
        return session

    @property
    def n_forwards(self) -> int:
        return sum(self.monitor.snapshot().forwards.values())


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack)


# Phases ------------------------------------------------------------------------------------------------


def test_a_session_goes_through_its_phases_and_ends_when_the_root_stops_it(stage: Stage) -> None:
    session = stage.configured()
    assert stage.monitor.snapshot().phase is WorkerPhase.LOADING
    [memory] = stage.report.of("memory")
    assert memory["needed"] == memory["weights"] + memory["buffers"] + memory["pipes"]
    stage.root.send_weights()
    session.load_weights()
    stage.root.receive_ack()
    assert stage.monitor.snapshot().phase is WorkerPhase.SERVING
    assert [fields["bytes"] for fields in stage.report.of("weights_loaded")] == [memory["weights"]]
    stage.root.send_forwards()
    assert session.run() == "the root stopped"
    stage.network.disconnect()
    assert len(stage.root.receive_all()) == len(CASE.data(1, 0)) - 4 * N_ACK_BYTES
    sizes = [size for _, size in CASE.control_packets if size]
    assert stage.n_forwards == len(sizes)
    assert sum(fields["tokens"] for fields in stage.report.of("evaluated")) == sum(sizes)


def test_phases_have_an_order(stage: Stage) -> None:
    with pytest.raises(InternalError, match="connect the network first"):
        WorkerSession(
            stage.network, RECORDING.greeting, stage.options, stage.table, stage.report, stage.monitor
        )
    session = stage.connected()
    with pytest.raises(InternalError, match="call configure first"):
        session.load_weights()
    with pytest.raises(InternalError, match="call configure first"):
        session.run()
    stage.configured(session)
    with pytest.raises(InternalError, match="call load_weights first"):
        session.run()


# Configuring -------------------------------------------------------------------------------------------


def test_a_root_that_says_nothing_is_not_waited_for_for_ever(stage: Stage) -> None:
    stage.options = replace(stage.options, handshake_timeout=0.02)
    session = stage.connected()
    with pytest.raises(PeerLost, match=r"said nothing for 0\.02 s \(--handshake-timeout\)"):
        session.configure()


@pytest.mark.parametrize("net_comes", [False, True])
def test_a_root_that_leaves_before_its_config_is_lost(stage: Stage, net_comes: bool) -> None:
    session = stage.connected()

    def leave() -> None:
        if net_comes:
            stage.root.send_net()
        stage.root.sock.close()

    stage.root.meanwhile(leave)
    with pytest.raises(PeerLost, match="closed the connection before its Ack"):
        session.configure()


def test_a_config_for_which_memory_does_not_suffice_is_not_acknowledged(stage: Stage) -> None:
    stage.options = replace(stage.options, max_memory=1000)
    session = stage.connected()
    stage.root.meanwhile(stage.root.send_configs)
    with pytest.raises(MachineError, match=r"--max-memory"):
        session.configure()
    stage.network.disconnect()
    assert stage.root.receive_all() == b""
    assert stage.monitor.snapshot().phase is not WorkerPhase.LOADING


def test_a_config_without_kernels_is_refused_with_every_op_of_it(stage: Stage) -> None:
    stage.table = KernelTable({}, (), (), Preferences(), (), ())
    session = stage.connected()
    stage.root.meanwhile(stage.root.send_configs)
    with pytest.raises(ConfigRejected) as caught:
        session.configure()
    assert caught.value.n_faults == sum(len(segment.ops) for segment in RECORDING.node.segments)
    stage.network.disconnect()
    assert stage.root.receive_all() == b""


# Weights -----------------------------------------------------------------------------------------------


def test_a_root_that_sends_no_weights_is_told_what_to_do(stage: Stage) -> None:
    session = stage.configured()
    stage.root.channel.send(WeightsEnd())
    with pytest.raises(WeightMismatch, match="the root sent no weights: start this worker with --model"):
        session.load_weights()


def test_a_root_that_leaves_between_two_weights_is_lost(stage: Stage) -> None:
    session = stage.configured()
    stage.root.sock.close()
    with pytest.raises(PeerLost, match="closed the connection before all weights had come"):
        session.load_weights()


def test_a_root_that_leaves_in_the_middle_of_a_weight_is_lost(stage: Stage) -> None:
    session = stage.configured()
    stage.root.send_weights(1000).join(30)
    stage.root.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerLost, match="bytes still to come"):
        session.load_weights()


def test_weights_that_come_too_slowly_end_the_session(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 3600.0
            return self.now

    session = stage.configured()
    monkeypatch.setattr(session_module, "time", Clock())
    stage.root.send_weights()
    with pytest.raises(
        PeerLost, match=r"weights come too slowly: expected 16384 bytes a second, got \d+ bytes"
    ):
        session.load_weights()


# Forwards ----------------------------------------------------------------------------------------------


def test_a_root_that_leaves_between_two_forwards_ends_the_session(stage: Stage) -> None:
    session = stage.loaded()
    stage.root.send_forwards(1).join(30)
    stage.root.sock.shutdown(socket.SHUT_WR)
    assert session.run() == "the root closed the connection"


def test_a_root_that_stalls_in_the_middle_of_a_forward_is_lost(stage: Stage) -> None:
    stage.options = replace(stage.options, sync_timeout=0.02)
    session = stage.loaded()
    stage.root.send(STREAM.data[STREAM.bytes_before_inference :][:N_CONTROL_BYTES])
    with pytest.raises(PeerLost, match=r"stalled for 0\.02 s with \d+ bytes of a sync to go"):
        session.run()
    assert stage.n_forwards == 0


def test_a_request_is_logged_when_the_root_is_silent_after_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_REQUEST_GAP", 0.0)
    session = stage.loaded()
    log = stage.report.info

    def go_on(event: str, message: str, **fields: Any) -> None:
        log(event, message, **fields)
        if event == "evaluated":
            stage.root.send_stop()

    monkeypatch.setattr(stage.report, "info", go_on)
    stage.root.send_forwards(1)
    assert session.run() == "the root stopped"
    [fields] = stage.report.of("evaluated")
    assert (fields["steps"], fields["tokens"]) == (1, CASE.control_packets[0][1])


def test_a_session_that_is_drained_between_forwards_ends_at_once(stage: Stage) -> None:
    session = stage.loaded()
    assert not session.drain()
    assert session.run() == "asked to stop"


def test_a_session_that_is_drained_in_a_forward_ends_after_it(stage: Stage) -> None:
    drained: list[bool] = []

    class Draining(Monitor):
        def wants_profile(self, batch_size: int) -> bool:
            drained.append(session.drain())
            return False

    stage.monitor = Draining()
    session = stage.loaded()
    stage.root.send_forwards()
    assert session.run() == "asked to stop"
    assert drained == [True]
    assert stage.n_forwards == 1


@pytest.mark.parametrize("profiled", [False, True])
def test_forwards_are_profiled_where_the_monitor_asks_for_it(stage: Stage, profiled: bool) -> None:
    stage.monitor = Monitor(profiled=profiled)
    session = stage.loaded()
    stage.root.send_forwards()
    session.run()
    codes = {code for code, _ in stage.monitor.snapshot().op_seconds}
    assert (UNPROFILED in codes) is not profiled
