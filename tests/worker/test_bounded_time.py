"""However long a config or a forward would take, a real worker ends when it is asked to, or its root has left."""

from __future__ import annotations

import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from dllama_ops import native
from dllama_proto.codec import encode
from dllama_proto.events import WeightsEnd
from dllama_proto.messages import ControlPacket
from tests.helpers.many_ops import MAX_OPS, activations, ropes, said
from tests.helpers.processes import WorkerProcess, worker_process

pytestmark = pytest.mark.slow

_N_ACK_BYTES = 4

#: Within these seconds it must end; what it is at takes a minute or more.
_SOON = 10.0


def _receive(root: socket.socket, n: int) -> None:
    while n:
        n -= len(root.recv(n))


@contextmanager
def _root(worker: WorkerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=60) as root:
        yield root


def _health(port: int) -> float:
    """Return how many seconds an answer takes."""
    started = time.monotonic()
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30).close()
    return time.monotonic() - started


def test_caches_that_ops_share_are_filled_once_however_many_ops_there_are() -> None:
    """Two thousand ops, each of which would fill four megabytes again."""
    with worker_process("--metrics-port", "0") as worker, _root(worker) as root:
        port = int(worker.wait_for("metrics")["port"])
        started = time.monotonic()
        root.sendall(said(ropes(2_000, 16_384)))
        worker.wait_for("memory")
        waits = [_health(port) for _ in range(5)]
        _receive(root, 3 * _N_ACK_BYTES)
        assert time.monotonic() - started < _SOON
        assert max(waits) < 2


def test_a_signal_ends_a_worker_that_fills_a_large_cache() -> None:
    """Only what has been filled by then takes memory."""
    with worker_process("--max-memory", "8G") as worker, _root(worker) as root:
        root.sendall(said(ropes(2, 1 << 24)))
        worker.wait_for("memory")
        started = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - started < _SOON


@contextmanager
def _in_a_long_forward(worker: WorkerProcess) -> Iterator[socket.socket]:
    """One segment of 65,536 ops on rows of a million values."""
    with _root(worker) as root:
        root.sendall(said(activations(MAX_OPS, width=1 << 20)))
        _receive(root, 3 * _N_ACK_BYTES)
        root.sendall(encode(WeightsEnd()))
        _receive(root, _N_ACK_BYTES)
        root.sendall(encode(ControlPacket(position=0, batch_size=1)))
        time.sleep(0.5)  # it says nothing when it begins
        yield root


@pytest.mark.skipif(native.unavailable is not None, reason="a plan of all ops is the native kernels'")
def test_a_forward_whose_root_has_left_ends_between_two_ops() -> None:
    with worker_process() as worker:
        with _in_a_long_forward(worker):
            pass
        started = time.monotonic()
        entry = worker.wait_for("session_failed")
        assert time.monotonic() - started < _SOON
    assert entry["kind"] == "PeerLost"
    assert "closed the connection" in entry["message"]


@pytest.mark.skipif(native.unavailable is not None, reason="a plan of all ops is the native kernels'")
def test_a_second_signal_ends_a_forward_between_two_ops() -> None:
    with worker_process() as worker, _in_a_long_forward(worker):
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("draining")
        started = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - started < _SOON
