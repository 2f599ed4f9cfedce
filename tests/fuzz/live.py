"""A running worker process is told anything at all; after each, the next honest root must be served."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress

from tests.fuzz.mutation import whole_stream
from tests.helpers.processes import WorkerProcess

__all__ = ["Finding", "LiveWorker"]

_ACK = bytes.fromhex("aaaa6701")
_GREETING = struct.pack("<II", 1, 0)

#: Seconds until a worker that says nothing more is taken for stuck.
_PATIENCE = 20.0

#: After how many streams a whole session is served and its every byte compared.
_WHOLE_SESSION_EVERY = 50


class Finding(AssertionError):
    """The worker did what it must not do."""


class LiveWorker:
    """A worker of its own process, and what it must go on doing whatever it hears."""

    def __init__(self) -> None:
        self._worker = WorkerProcess("--handshake-timeout", "5", "--max-memory", "200M")
        self._count = 0
        self._honest = self._session(whole_stream())

    def tell(self, said: bytes) -> None:
        """Say it, hang up, and see whether the next root is served. Raises Finding."""
        self._session(said)
        self._count += 1
        if self._count % _WHOLE_SESSION_EVERY == 0:
            if self._session(whole_stream()) != self._honest:
                raise Finding("an honest session was answered otherwise than before")
        elif not self._session(_GREETING).startswith(_ACK):
            raise Finding("an honest root was not greeted")
        self._read_log()

    def kill(self) -> None:
        """End the process by force, after a finding."""
        self._worker.process.kill()
        self._worker.wait()

    def close(self) -> None:
        """End the process. Raises Finding where it ended otherwise than asked."""
        code = self._worker.terminate()
        self._read_log()
        if code:
            raise Finding(f"the worker ended with code {code}")

    def _session(self, said: bytes) -> bytes:
        """Say everything and hang up; return all that was answered."""
        heard = bytearray()
        with socket.create_connection(("127.0.0.1", self._worker.port), timeout=_PATIENCE) as sock:
            with suppress(OSError):  # it may have heard enough
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
            started = time.monotonic()
            try:
                while data := sock.recv(1 << 16):
                    heard += data
            except ConnectionError:
                pass
            except TimeoutError:
                raise Finding(f"no end of the session after {time.monotonic() - started:.0f} s") from None
        if self._worker.process.poll() is not None:
            raise Finding(f"the worker has ended with code {self._worker.process.poll()}")
        return bytes(heard)

    def _read_log(self) -> None:
        for entry in self._worker.drain():
            if entry["level"] == "error":
                raise Finding(f"{entry['message']}\n{entry.get('traceback', '')}")
