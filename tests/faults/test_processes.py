"""Nodes that die, stall, stop and hang up at every point of a session, with four real processes on loopback.

One worker is looked at through all of it, the last of three: it says what happened in one line, gives its memory
back, listens again at once, and its next session writes the right text. ``DLLAMA_FAULTS=all`` has every fault at
every point; without, each fault is at one, and only the root dies everywhere.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from ast import literal_eval
from collections.abc import Iterator

import pytest

from tests.faults.hosts import Puppet, end_of_session, generate, puppet, resident_bytes
from tests.faults.puppet import ACK, POINTS
from tests.helpers.processes import WorkerProcess

pytestmark = pytest.mark.slow

ALL = os.environ.get("DLLAMA_FAULTS") == "all"

#: Short, so that a test is: what hosts lose by it is tested beside.
LIMITS = ("--handshake-timeout", "2", "--sync-timeout", "2", "--nthreads", "2")

#: How much more than before a worker may hold after a fault.
SPARE_BYTES = 20_000_000

#: Seconds within which others notice what is noticed by a closed connection, and by silence.
AT_ONCE, AFTER_SILENCE = 2.0, 6.0


class Cluster:
    """Three workers that stay; the last one is looked at."""

    def __init__(self) -> None:
        self.workers = [WorkerProcess(*LIMITS) for _ in range(3)]
        # Twice: memory grows to what a session needs once.
        self.expected = generate(self.addresses)
        assert generate(self.addresses) == self.expected
        self.alone = generate(self.addresses[2:])
        for worker in self.workers:
            worker.drain()
        self.before = resident_bytes(self.watched.process.pid)

    @property
    def watched(self) -> WorkerProcess:
        return self.workers[2]

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{worker.port}" for worker in self.workers]

    def replace(self, index: int) -> None:
        """Kill a worker and start another in its place."""
        self.workers[index].process.kill()
        self.workers[index].wait()
        self.workers[index] = WorkerProcess(*LIMITS)

    def check_recovered(self) -> None:
        """What must hold of the watched worker after any fault."""
        with socket.create_connection(("127.0.0.1", self.watched.port), timeout=2) as root:
            root.sendall(struct.pack("<II", 1, 0))
            assert root.recv(4, socket.MSG_WAITALL) == ACK
        end_of_session(self.watched, AT_ONCE)
        grown = resident_bytes(self.watched.process.pid) - self.before
        assert grown < SPARE_BYTES, f"the worker holds {grown:,} bytes more than before"
        assert generate(self.addresses[2:]) == self.alone
        assert end_of_session(self.watched, AT_ONCE)["reason"] == "the root stopped"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    nodes = Cluster()
    yield nodes
    for worker in nodes.workers:
        worker.process.send_signal(signal.SIGCONT)
        assert worker.terminate() == 0


@pytest.fixture
def fresh(cluster: Cluster) -> Cluster:
    """The cluster with everybody idle, whatever the test before did to it."""
    for worker in cluster.workers:
        worker.drain()
    return cluster


def points(*chosen: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("point", POINTS if ALL else chosen)


@points(*POINTS)
def test_the_root_is_killed(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        root.process.kill()
        root.process.wait()
        entry = end_of_session(fresh.watched, AT_ONCE)
    assert "clos" in entry["message"] or "reset" in entry["message"]
    fresh.check_recovered()


@points("slice")
def test_the_roots_connections_are_reset(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        root.order("reset")
        end_of_session(fresh.watched, AT_ONCE)
    fresh.check_recovered()


@points("decode", "idle")
def test_the_root_closes_its_direction_only(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        root.order("half")
        end_of_session(fresh.watched, AT_ONCE)
    fresh.check_recovered()


def go_on(root: Puppet) -> None:
    """Let a root find out that a worker is gone: until then the other workers wait for it, rightly."""
    root.order("go")


@points("mesh", "decode", "idle")
def test_a_peer_is_killed(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        fresh.replace(0)
        if point != "idle":
            go_on(root)
        entry = end_of_session(fresh.watched, AFTER_SILENCE if point == "handshake" else 2 * AT_ONCE)
    if point == "idle":
        assert "node 1 (" in entry["message"]
    fresh.check_recovered()


@points("decode")
def test_a_peer_stalls(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        stalled = fresh.workers[0].process
        stalled.send_signal(signal.SIGSTOP)
        try:
            go_on(root)
            entry = end_of_session(fresh.watched, AFTER_SILENCE)
        finally:
            stalled.send_signal(signal.SIGCONT)
        if point == "decode":
            assert "stalled for 2 s" in entry["message"]
    for worker in fresh.workers[:2]:
        end_of_session(worker, AFTER_SILENCE)
    fresh.check_recovered()


@points("weights", "decode")
def test_a_worker_that_is_stopped_and_continued_goes_on(fresh: Cluster, point: str) -> None:
    with puppet(point, fresh.addresses) as root:
        fresh.watched.process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)  # what is tested: a pause, shorter than what the others put up with
        fresh.watched.process.send_signal(signal.SIGCONT)
        # What this root has sent at "slice" is no whole one: there is nothing to go on with.
        text = None if point == "slice" else root.text()
    reason = end_of_session(fresh.watched, AT_ONCE)["reason"]
    if text is not None:
        assert fresh.expected.startswith(literal_eval(text))
        assert reason == "the root stopped"
    fresh.check_recovered()
