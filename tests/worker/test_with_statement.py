"""A worker in a with statement: it listens inside, and leaving it ends whatever runs in whichever thread."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time

import pytest

from dllama_worker import Root, Worker
from dllama_worker.errors import MachineError, UsageError
from dllama_worker.worker.link_watch import Stopped
from tests.faults.endurance import Holdings
from tests.helpers.reports import Collected

TIMEOUT = 30.0


def is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_port_is_known_inside_and_free_after() -> None:
    with Worker(port=0) as worker:
        address = worker.address.host, worker.address.port
        assert address[1] > 0
        assert worker.listen() == address
        assert is_listening(address)
    assert not is_listening(address)
    with pytest.raises(UsageError, match="does not listen"):
        worker.address  # noqa: B018
    worker.close()


def test_a_port_that_is_taken_is_told_on_entering() -> None:
    with (
        Worker(port=0) as worker,
        pytest.raises(MachineError, match="cannot listen"),
        Worker(port=worker.address.port),
    ):
        pytest.fail("there is no second listener")


def test_started_it_serves_one_root_after_another() -> None:
    before = threading.active_count()
    report = Collected()
    with Worker(port=0, report=report) as worker:
        worker.start()
        with pytest.raises(UsageError, match="started already"):
            worker.start()
        for _ in range(2):
            with Root(workers=[worker.address]) as root:
                assert root.generate("ROMEO:", max_tokens=2).finish()
    assert threading.active_count() == before
    assert len(report.of("root_connected")) == 2


@pytest.mark.parametrize("method", ["serve_forever", "serve_once", "connect"])
def test_leaving_ends_what_runs_in_a_thread_of_the_callers(method: str) -> None:
    """And the sockets are closed only when that thread has left them."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(getattr(worker, method)())
        except Stopped as error:
            ended.append(error)

    with Worker(port=0) as worker:
        thread = threading.Thread(target=run)
        thread.start()
        while worker._in_use.acquire(blocking=False):  # until the other thread is in it
            worker._in_use.release()
            time.sleep(0.001)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_leaving_in_the_middle_of_a_session_ends_it() -> None:
    before = threading.active_count()
    with Worker(port=0) as worker:
        worker.start()
        root = Root(workers=[worker.address]).open()
        completion = root.generate("ROMEO:")
        next(completion)
    with pytest.raises(Exception, match="node 1"):
        completion.finish()
    root.close()
    assert threading.active_count() == before


def test_after_it_was_stopped_nothing_listens_again() -> None:
    with Worker(port=0) as worker:
        address = worker.address.host, worker.address.port
        worker.stop()
        worker.serve_forever()
        worker.serve_once()
    worker.serve_forever()
    with pytest.raises(Stopped):
        worker.connect()
    assert not is_listening(address)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_it_leaves_no_descriptor_and_no_thread() -> None:
    def use() -> None:
        with Worker(port=0, n_threads=2) as worker:
            worker.start()
            with Root(workers=[worker.address]) as root:
                root.generate("ROMEO:", max_tokens=2).finish()

    use()
    gc.collect()  # what earlier tests left would go in between
    before = Holdings.of(os.getpid())
    use()
    after = Holdings.of(os.getpid())
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
