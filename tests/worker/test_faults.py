"""Bad connections to a real worker process: each costs one session, none the process."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack, suppress

import pytest

from dllama_proto.exit_codes import ExitCode
from dllama_worker import Worker, WorkerOptions
from tests.helpers.captures import load
from tests.helpers.processes import WorkerProcess, worker_process
from tests.helpers.reports import Collected
from tests.worker.replay import play, read_recording

ACK = bytes.fromhex("aaaa6701")
CASE = "tiny-q40-2n"


def call(worker: WorkerProcess, *parts: bytes, answers: int = 0) -> None:
    """Say something, read that many acks after each part, and hang up."""
    with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as sock:
        for part in parts:
            sock.sendall(part)
            if answers:
                answers -= 1
                assert sock.recv(4, socket.MSG_WAITALL) == ACK


def greeting() -> bytes:
    return struct.pack("<II", 1, 0)


def said_by_root() -> bytes:
    return load(CASE).data(0, 1)


@pytest.mark.slow
def test_whatever_strangers_do_the_next_root_is_served() -> None:
    said = said_by_root()
    n_config = said.index(b"block_cast_x")
    huge = struct.pack("<IIII", 32, 2, 0xFFFFFFFF, 0)
    strangers: list[tuple[tuple[bytes, ...], int, str]] = [
        ((), 0, "closed the connection before its Greeting"),
        ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",), 0, "Greeting"),
        ((b"\x16\x03\x01\x02\x00\x01\x00",), 0, "speaks TLS and this worker does not"),
        ((struct.pack("<II", 0xFFFFFFFF, 0),), 0, "Greeting.n_sockets at byte 0"),
        ((greeting()[:6],), 0, "Greeting"),
        ((greeting(), b"\xaa\xaa\x67\x02"), 1, "Ack"),
        ((greeting(), ACK + ACK + huge), 1, "NetConfig.n_pipes"),
        ((greeting(), said[8:n_config]), 1, "NodeConfig"),
    ]
    with worker_process() as worker:
        for parts, answers, complaint in strangers:
            call(worker, *parts, answers=answers)
            entry = worker.wait_for("session_failed" if answers else "turned_away")
            assert complaint in entry["message"], entry
            assert entry["level"] == "warning"
            assert "\n" not in entry["message"]
        session = load(CASE)
        sent = play(session, read_recording(session, 1), worker.port)
        assert worker.wait_for("session_ended")["reason"] == "the root stopped"
        assert len(sent[0]) == len(session.data(1, 0))
        assert worker.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97, 0.999])
def test_a_root_that_vanishes_at_any_point_is_told_and_survived(share: float) -> None:
    session = load(CASE)
    said = said_by_root()
    with worker_process() as worker:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as sock:
            sock.sendall(said[: int(len(said) * share)])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        assert worker.wait_for("session_failed")["level"] == "warning"
        play(session, read_recording(session, 1), worker.port)
        worker.wait_for("session_ended")


@pytest.mark.slow
def test_a_config_that_needs_more_memory_than_there_is_is_refused_before_anything_is_allocated() -> None:
    session = load(CASE)
    said = bytearray(session.data(0, 1))
    # The key cache of layer 0: make its rows so many that no machine has the memory, consistently.
    at = said.index(b"\x02\0\0\0k\0") - 40
    float_type, z, _, x = struct.unpack_from("<iIII", said, at)
    y = (1 << 36) // x
    said[at : at + 40] = struct.pack("<iIIIQQQ", float_type, z, y, x, z * y * x, 4 * z * y * x, 4 * y * x)
    with worker_process() as worker:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as sock:
            sock.sendall(said)
            entry = worker.wait_for("session_failed")
        assert "bytes" in entry["message"]
        assert entry["kind"] in ("MachineError", "RemoteProtocolError", "ConfigRejected")


@pytest.mark.slow
def test_once_ends_with_the_peers_exit_code() -> None:
    with worker_process("--once") as worker:
        call(worker, b"GET / HTTP/1.1\r\n\r\n")  # no root, so no session
        call(worker, greeting(), answers=1)
        assert worker.wait() == 3


def test_silent_and_dripping_connections_are_rejected_and_keep_nobody_out() -> None:
    report = Collected()
    worker = Worker(options=WorkerOptions(port=0, handshake_timeout=0.3), report=report)
    address = worker.listen()
    serving = threading.Thread(target=worker.serve_once)
    serving.start()
    with ExitStack() as stack:
        stack.callback(worker.close)
        stack.callback(serving.join, 30)
        stack.callback(worker.stop)
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(70)]
        dripping = stack.enter_context(socket.create_connection(address))
        with suppress(OSError):
            for byte in greeting()[:7]:
                dripping.sendall(bytes([byte]))
                serving.join(0.1)
        for sock in (*silent, dripping):
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        reasons = {fields["reason"] for fields in report.of("turned_away")}
        assert reasons <= {"64 others wait who have not greeted", "no greeting within 0.3 s"}
        root = stack.enter_context(socket.create_connection(address))
        root.sendall(greeting())
        assert root.recv(4, socket.MSG_WAITALL) == ACK


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "nothing came in time"),
        (ACK, "said nothing for 0.3 s (--handshake-timeout)"),
        (ACK + ACK + struct.pack("<II", 32, 2), "nothing came in time"),
    ],
    ids=["handshake", "config", "mid-message"],
)
def test_a_root_that_falls_silent_before_its_weights_are_loaded_is_given_up_on(
    said: bytes, complaint: str
) -> None:
    report = Collected()
    worker = Worker(options=WorkerOptions(port=0, handshake_timeout=0.3), report=report)
    with socket.create_connection(worker.listen()) as root:
        root.sendall(greeting() + said)
        assert worker.serve_once() is ExitCode.PEER
    [fields] = report.of("session_failed")
    assert complaint in fields["reason"]
    worker.close()


def test_weights_that_drip_are_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dllama_worker.worker.session._MIN_WEIGHT_RATE", 1e12)
    report = Collected()
    worker = Worker(options=WorkerOptions(port=0, handshake_timeout=0.3), report=report)
    said = said_by_root()
    step = len(said) // 40

    def drip(root: socket.socket) -> None:
        with suppress(OSError):
            for at in range(0, len(said), step):
                root.sendall(said[at : at + step])
                threading.Event().wait(0.05)

    with socket.create_connection(worker.listen()) as root:
        dripping = threading.Thread(target=drip, args=(root,))
        dripping.start()
        assert worker.serve_once() is ExitCode.PEER
        dripping.join(30)
    [fields] = report.of("session_failed")
    assert "weights come too slowly" in fields["reason"]
    worker.close()


@pytest.mark.slow
def test_while_a_session_runs_others_are_rejected_at_once() -> None:
    session = load(CASE)
    said = said_by_root()
    stop = len(said) - 8
    with worker_process() as worker:
        with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as root:
            root.sendall(said[: stop - 600])
            worker.wait_for("weights_loaded")
            for _ in range(30):
                call(worker, b"")
            with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as second:
                assert second.recv(4) == b""
            entry = worker.wait_for("turned_away")
            assert "this worker is in a session with a root" in entry["message"]
        worker.wait_for("session_failed")
        assert sum(entry["event"] == "turned_away" for entry in worker.log) <= 12
        play(session, read_recording(session, 1), worker.port)
        worker.wait_for("session_ended")


def test_max_memory_holds_before_anything_is_allocated() -> None:
    report = Collected()
    worker = Worker(options=WorkerOptions(port=0, max_memory=100_000), report=report)
    with socket.create_connection(worker.listen()) as root:
        root.sendall(said_by_root())
        assert worker.serve_once() is ExitCode.MACHINE
    [fields] = report.of("session_failed")
    assert "expected no more than 100,000 (--max-memory" in fields["reason"]
    worker.close()
