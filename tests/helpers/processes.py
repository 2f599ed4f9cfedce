"""Real worker processes on loopback: started, read by their JSON log, always ended."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["WorkerProcess", "worker_process"]

_REPOSITORY = Path(__file__).parents[2]
_TIMEOUT = 30.0


class WorkerProcess:
    """A ``dllama-worker`` of its own process; ``port`` is where it listens."""

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), stdin: int | None = None) -> None:
        command = [
            *prefix, sys.executable, "-m", "dllama_worker", "--port", "0", "--log-format", "json", *arguments
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=_REPOSITORY, stdin=stdin, stderr=subprocess.PIPE, text=True
        )
        self.log: list[dict[str, Any]] = []
        self._arriving: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait_for("listening")["port"])

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self._arriving.put(json.loads(line))
        self._arriving.put(None)

    def wait_for(self, *events: str) -> dict[str, Any]:
        """Return the next log entry of one of these events, keeping those before it in ``log``."""
        while True:
            try:
                entry = self._arriving.get(timeout=_TIMEOUT)
            except queue.Empty:
                raise AssertionError(
                    f"nothing came of {events} in {_TIMEOUT:g} s: {self.log[-5:]}"
                ) from None
            if entry is None:
                raise AssertionError(f"the worker ended before {events}: {self.log}")
            self.log.append(entry)
            if entry["event"] in events:
                return entry

    def drain(self) -> list[dict[str, Any]]:
        """Return what has been logged and not been asked for yet; it is not kept."""
        entries = []
        while not self._arriving.empty():
            entry = self._arriving.get()
            if entry is None:
                self._arriving.put(None)
                break
            entries.append(entry)
        return entries

    def terminate(self, signum: int = signal.SIGTERM) -> int:
        """End it as a person or a service manager would, and return its exit code."""
        self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(_TIMEOUT)
        self._reader.join(_TIMEOUT)
        while (entry := self._arriving.get(timeout=_TIMEOUT)) is not None:
            self.log.append(entry)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


@contextmanager
def worker_process(*arguments: str) -> Iterator[WorkerProcess]:
    """Run a worker for the length of a test."""
    worker = WorkerProcess(*arguments)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        if worker.process.stderr is not None and not worker.process.stderr.closed:
            worker.wait()
