"""A worker that is told to end in the middle of a forward: it ends after it, or at once when told again."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dllama_proto.sync_plan import plan_link
from tests.helpers.captures import load
from tests.helpers.processes import WorkerProcess, worker_process
from tests.worker.replay import N_ACK_BYTES, read_recording
from tests.worker.test_monitoring import get

CASE = "tiny-q40-2n"
N_CONTROL_BYTES = 8


def bytes_of_first_sync() -> int:
    """What the root sends of the first forward before the worker answers."""
    session = load(CASE)
    recording = read_recording(session, 1)
    first = plan_link(recording.net, recording.node, 0).receives[0]
    return first.size * session.control_packets[0][1]


def receive(sock: socket.socket, n: int) -> None:
    while n:
        data = sock.recv(n)
        assert data
        n -= len(data)


@contextmanager
def in_a_forward() -> Iterator[tuple[WorkerProcess, str, socket.socket, bytes]]:
    """A worker in the middle of its first forward; the last of the pair is what the root still has to say."""
    stream = load(CASE).stream(0, 1)
    said = stream.bytes_before_inference + N_CONTROL_BYTES + bytes_of_first_sync()
    with worker_process("--metrics-port", "0") as worker:
        entry = worker.wait_for("metrics")
        with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as root:
            root.sendall(stream.data[:said])
            receive(root, N_ACK_BYTES + 1)  # the acks, and a first byte of the forward
            yield worker, f"{entry['host']}:{entry['port']}", root, stream.data[said:]


@pytest.mark.slow
def test_sigterm_lets_the_forward_end() -> None:
    with in_a_forward() as (worker, address, root, rest):
        assert get(address, "/healthz") == (200, "serving\n")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("draining")
        assert get(address, "/healthz") == (503, "draining\n")
        with contextlib.suppress(OSError):
            root.sendall(rest)
        evaluated = worker.wait_for("evaluated")
        assert worker.wait_for("session_ended")["reason"] == "asked to stop"
        assert worker.wait() == 0
    assert (evaluated["steps"], evaluated["tokens"]) == (1, load(CASE).control_packets[0][1])


@pytest.mark.slow
def test_a_second_sigterm_ends_it_at_once() -> None:
    with in_a_forward() as (worker, _, root, _):
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("draining")
        assert worker.terminate() == 0
        assert "evaluated" not in {entry["event"] for entry in worker.log}
        with contextlib.suppress(ConnectionError):
            while root.recv(1 << 16):
                pass


@pytest.mark.slow
def test_between_forwards_one_signal_is_enough() -> None:
    session = load(CASE)
    stream = session.stream(0, 1)
    with (
        worker_process() as worker,
        socket.create_connection(("127.0.0.1", worker.port), timeout=30) as root,
    ):
        root.sendall(stream.data[: stream.bytes_before_inference])
        worker.wait_for("weights_loaded")
        assert worker.terminate() == 0
        assert "draining" not in {entry["event"] for entry in worker.log}
