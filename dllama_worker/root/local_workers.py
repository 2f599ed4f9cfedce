"""Workers on this machine, started for one session of a root and ended with it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import MachineError
from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.node.tls import TlsFiles

__all__ = ["LocalWorkers"]

#: Lines that a worker said last, which the error quotes where it does not start.
_N_LINES = 10


class LocalWorkers:
    """A context manager: the worker processes run inside it; ``addresses`` is where they listen.

    Each serves one session on loopback and would exit by itself after it; leaving the context ends them in
    any case, and so does the end of this process, however it dies: they watch their standard input, a pipe.
    """

    def __init__(
        self,
        count: int,
        *,
        n_threads: int,
        kernels: str = "",
        model: Path | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        arguments = ["--port", "0", "--once", "--end-with-stdin", "--log-format", "json"]
        arguments += ["--nthreads", str(n_threads)]
        if kernels:
            arguments += ["--kernels", kernels]
        if model is not None:
            arguments += ["--model", str(model)]
        if tls is not None:
            arguments += ["--tls-cert", str(tls.certificate), "--tls-key", str(tls.key)]
            arguments += ["--tls-ca", str(tls.authority)]
        self._command = [sys.executable, "-m", "dllama_worker", *arguments]
        self._count = count
        self._processes: list[_Process] = []
        self.addresses: tuple[Endpoint, ...] = ()

    def __enter__(self) -> LocalWorkers:
        """Start them all at once, then wait for each to listen. Raises MachineError."""
        try:
            self._processes = [_Process(self._command) for _ in range(self._count)]
            self.addresses = tuple(Endpoint("127.0.0.1", p.wait_for_port()) for p in self._processes)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def times(self) -> list[ForwardTimes]:
        """Return what each worker told of its forwards, once it has ended."""
        return [process.times() for process in self._processes]

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _Process:
    """One worker; a thread reads its log so that it never waits for us."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for the root, which then ends its workers itself
            )
        except OSError as error:
            raise MachineError(f"cannot start a worker process: {error.strerror or error}") from error
        self._port: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._said: deque[str] = deque(maxlen=_N_LINES)
        self._times = ForwardTimes()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stderr or ():
            try:
                entry = json.loads(line)
            except ValueError:
                self._said.append(line.strip())
                continue
            if entry.get("event") == "listening":
                self._port.put(int(entry["port"]))
            elif entry.get("event") == "evaluated":
                self._times.add(
                    entry["tokens"], entry["op_seconds"], entry["sync_seconds"], forwards=entry["steps"]
                )
            elif entry.get("level") in ("warning", "error"):
                self._said.append(str(entry.get("message")))
        self._port.put(None)

    def wait_for_port(self) -> int:
        try:
            port = self._port.get(timeout=timeouts.LOCAL_START)
        except queue.Empty:
            raise MachineError(
                f"a local worker did not start within {timeouts.LOCAL_START:.0f} s"
            ) from None
        if port is None:
            raise MachineError(
                "a local worker did not start: " + ("; ".join(self._said) or "it says nothing")
            )
        return port

    def times(self) -> ForwardTimes:
        """Wait for the process to end, as it does after its session, and return the sums of what it told."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeouts.LOCAL_END)
        self._reader.join(timeouts.LOCAL_END)
        return self._times

    def end(self) -> None:
        """End the process, by force if it does not go."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(timeouts.LOCAL_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeouts.LOCAL_END)
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None:
                pipe.close()
