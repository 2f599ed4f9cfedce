"""Bad callers against a real worker process: each costs one session, none the process."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.captures import load
from tests.helpers.processes import WorkerProcess, worker_process
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
        ((), 0, "closed the connection"),
        ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",), 0, "Greeting"),
        ((b"\x16\x03\x01\x02\x00\x01\x00",), 0, "Greeting"),
        ((struct.pack("<II", 0xFFFFFFFF, 0),), 0, "Greeting.n_sockets at byte 0"),
        ((greeting()[:6],), 0, "Greeting"),
        ((greeting(), b"\xaa\xaa\x67\x02"), 1, "Ack"),
        ((greeting(), ACK + ACK + huge), 1, "NetConfig.n_pipes"),
        ((greeting(), said[8:n_config]), 1, "NodeConfig"),
    ]
    with worker_process() as worker:
        for parts, answers, complaint in strangers:
            call(worker, *parts, answers=answers)
            entry = worker.wait_for("session_failed")
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
        call(worker, b"GET / HTTP/1.1\r\n\r\n")
        assert worker.wait() == 3


@pytest.mark.slow
def test_a_silent_caller_is_given_up_on() -> None:
    code = (
        "import sys, threading\n"
        "from dllama_worker import Worker, WorkerOptions\n"
        "from dllama_worker.errors import PeerLost\n"
        "import socket\n"
        "w = Worker(options=WorkerOptions(port=0, handshake_timeout=0.2))\n"
        "s = socket.create_connection(w.listen())\n"
        "try:\n"
        "    w.connect()\n"
        "except PeerLost as error:\n"
        "    print(error)\n"
        "w.close()\n"
        "s.close()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "nothing came in time" in result.stdout
