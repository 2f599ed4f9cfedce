"""Workers of one machine: they end with their root, also where it can't end them any more."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from dllama_proto.exit_codes import ExitCode
from dllama_worker.root.local_workers import LocalWorkers
from tests.helpers.processes import WorkerProcess

_REPOSITORY = Path(__file__).parents[2]
_TIMEOUT = 30.0

#: A program that starts workers, says where they listen, and never comes to connect to them.
_PARENT = """
import time
from dllama_worker.root.local_workers import LocalWorkers

with LocalWorkers(2, n_threads=1) as workers:
    print(*(endpoint.port for endpoint in workers.addresses), flush=True)
    time.sleep(3600)
"""


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _ends_listening(port: int) -> bool:
    until = time.monotonic() + _TIMEOUT
    while _listens(port):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_workers_end_with_a_program_that_is_killed_before_it_connects() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            ports = [int(port) for port in parent.stdout.readline().split()]
            assert len(ports) == 2
            assert all(map(_listens, ports))
        finally:
            parent.kill()
    assert all(map(_ends_listening, ports))


def test_workers_end_with_their_context() -> None:
    with LocalWorkers(1, n_threads=1) as workers:
        port = workers.addresses[0].port
        assert _listens(port)
    assert not _listens(port)


def test_a_worker_ends_as_asked_when_standard_input_ends() -> None:
    read, write = socket.socketpair()
    with read, write:
        worker = WorkerProcess("--end-with-stdin", stdin=read.fileno())
        write.send(b"what comes is not looked at")
        write.close()
        assert worker.wait() == ExitCode.DONE


def test_without_the_flag_standard_input_says_nothing() -> None:
    worker = WorkerProcess(stdin=subprocess.DEVNULL)
    assert worker.process.poll() is None
    assert _listens(worker.port)
    assert worker.terminate(signal.SIGTERM) == ExitCode.DONE
