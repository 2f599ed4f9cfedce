"""A running worker process is told anything at all; after each, the next honest root must be served."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from random import Random

from tests.fuzz.mutation import MESHES, changed_stream, whole_stream
from tests.helpers.captures import load
from tests.helpers.processes import WorkerProcess
from tests.worker.replay import play, read_recording

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
    """A worker of its own process, and what it must go on doing whatever it hears.

    The process is started when it is first needed, and anew after a finding.
    """

    def __init__(self) -> None:
        self._process: WorkerProcess | None = None
        self._count = 0
        self._honest = b""
        self._undisturbed: dict[tuple[str, int], dict[int, bytes]] = {}

    @property
    def _worker(self) -> WorkerProcess:
        if self._process is None:
            self._process = WorkerProcess(
                "--handshake-timeout", "5", "--sync-timeout", "5", "--max-memory", "200M"
            )
            self._honest = self._session(whole_stream())
        return self._process

    def tell(self, said: bytes) -> str:
        """Be a root that says this and hangs up, then see whether the next one is served. Raises Finding."""
        return self._survive(lambda: self._session(said))

    def play(self, random: Random) -> str:
        """Be a recorded cluster around one of its workers; strangers come first, or some nodes lie.

        Then see whether the next root is served; where only strangers came, also whether the worker said what it
        says without them. Raises Finding.
        """
        case = random.choice(MESHES)
        session = load(case)
        node = random.randrange(1, session.n_nodes)
        everybody = tuple(range(session.n_nodes))
        liars = random.choice(((), (0,), (0,), everybody[1:], everybody))

        def change(peer: int, data: bytes) -> bytes:
            return changed_stream(data, random) if peer in liars else data

        def run() -> None:
            recording = read_recording(session, node)
            if liars:
                play(session, recording, self._worker.port, change)
                return
            with ExitStack() as stack:
                heard = play(
                    session, recording, self._worker.port, before_mesh=lambda: self._intrude(random, stack)
                )
            if (case, node) not in self._undisturbed:
                self._undisturbed[case, node] = play(session, recording, self._worker.port)
            if heard != self._undisturbed[case, node]:
                raise Finding(f"strangers changed what node {node} of {case} says")

        return self._survive(run)

    def _intrude(self, random: Random, stack: ExitStack) -> None:
        """Call a few times: silently, with a word, or only to hang up."""
        for _ in range(random.randrange(1, 4)):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", self._worker.port)))
            match random.randrange(3):
                case 0:
                    stranger.sendall(random.randbytes(random.randrange(1, 100)))
                case 1:
                    stranger.close()
                case _:
                    pass

    def _survive(self, ordeal: Callable[[], object]) -> str:
        try:
            ordeal()
            self._count += 1
            if self._count % _WHOLE_SESSION_EVERY == 0:
                if self._session(whole_stream()) != self._honest:
                    raise Finding("an honest session was answered otherwise than before")
            elif not self._session(_GREETING).startswith(_ACK):
                raise Finding("an honest root was not greeted")
            self._read_log()
        except BaseException:
            self.kill()
            raise
        return "survived"

    def kill(self) -> None:
        """End the process by force, if there is one."""
        if self._process is not None:
            self._process.process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the process, if there is one. Raises Finding where it ended otherwise than asked."""
        if self._process is None:
            return
        code = self._process.terminate()
        self._read_log()
        self._process = None
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
