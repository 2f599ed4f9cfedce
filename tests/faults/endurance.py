"""What a process holds, session after session: memory, descriptors, threads."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.hosts import resident_bytes
from tests.fuzz.mutation import whole_stream
from tests.helpers.processes import WorkerProcess

__all__ = ["Holdings", "many_sessions"]

#: Sessions until a process holds what it needs for good.
_WARM_UP = 60

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process holds; ``memory`` is resident, in bytes."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        """Look at a process ten times, for the least of each: threads of the last session may be ending still."""
        looks = []
        for _ in range(10):
            looks.append(cls._now(pid))
            time.sleep(0.02)
        return cls(
            min(look.memory for look in looks),
            min(look.descriptors for look in looks),
            min(look.threads for look in looks),
        )

    @classmethod
    def _now(cls, pid: int) -> Holdings:
        proc = Path(f"/proc/{pid}")
        return cls(
            resident_bytes(pid),
            len(list(proc.joinpath("fd").iterdir())),
            len(list(proc.joinpath("task").iterdir())),
        )


def _say(port: int, said: bytes, *, reset: bool = False) -> bytes:
    """Say something to a worker and return all that it answers."""
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as sock, suppress(ConnectionError):
        sock.sendall(said)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(1 << 16):
            heard += data
    return bytes(heard)


def many_sessions(count: int, *arguments: str) -> tuple[Holdings, Holdings]:
    """Serve ``count`` sessions with one worker process; return what it holds after a few, and after all.

    Every second is whole, and must be answered like the first; of the others the root vanishes at every point,
    half of them with a reset.
    """
    worker = WorkerProcess(*arguments)
    said = whole_stream()
    try:
        expected = _say(worker.port, said)
        worker.wait_for("session_ended")
        for number in range(_WARM_UP + count):
            if number == _WARM_UP:
                before = Holdings.of(worker.process.pid)
            if number % 2:
                _say(worker.port, said[: number * 7919 % len(said)], reset=number % 4 == 1)
            else:
                assert _say(worker.port, said) == expected, f"session {number} was answered otherwise"
            worker.wait_for("session_ended", "session_failed", "turned_away")
            worker.log.clear()
        _say(worker.port, said)
        worker.wait_for("session_ended")
        after = Holdings.of(worker.process.pid)
        assert worker.terminate() == 0
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.wait()
    return before, after
