"""Worker processes and puppet roots, here or each in a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.faults.cable import Cable
from tests.faults.puppet import N_TOKENS, PROMPT
from tests.helpers.processes import WorkerProcess

__all__ = [
    "Puppet",
    "TwoHosts",
    "end_of_session",
    "generate",
    "namespaces_missing",
    "puppet",
    "resident_bytes",
]

_REPOSITORY = Path(__file__).parents[2]
_TIMEOUT = 60.0


class Puppet:
    """A root process that waits at ``point`` (see :mod:`tests.faults.puppet`)."""

    def __init__(self, point: str, addresses: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.faults.puppet", point, *addresses],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = self._line()
        if point and said != point:
            self.close()
            raise AssertionError(f"expected the root to reach {point}, got {said!r}")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, order: str) -> None:
        """Have it do something; it may be dead."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{order}\n")
            self.process.stdin.flush()

    def text(self) -> str:
        """Let it go on to its end and return what it generated."""
        self.order("go")
        return self._line()

    def close(self) -> str:
        """End it, whatever it does, and return what it complained of."""
        self.process.kill()
        _, complaint = self.process.communicate(timeout=_TIMEOUT)
        return str(complaint)


@contextmanager
def puppet(point: str, addresses: Sequence[str], prefix: Sequence[str] = ()) -> Iterator[Puppet]:
    """Run a puppet for the length of a test."""
    root = Puppet(point, addresses, prefix)
    try:
        yield root
    finally:
        root.close()


def generate(addresses: Sequence[str], prefix: Sequence[str] = (), steps: int = 64) -> str:
    """Run a whole session with ``dllama-root`` and return its text as the puppet writes it."""
    result = subprocess.run(
        [
            *prefix, sys.executable, "-m", "dllama_worker.root", "inference", "--json", "--prompt", PROMPT,
            "--steps", str(steps), "--temperature", "0", "--workers", *addresses,
        ],
        cwd=_REPOSITORY, capture_output=True, text=True, timeout=_TIMEOUT, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert len(document["tokens"]) > N_TOKENS
    return str(document["text"])


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Hosts ----------------------------------------------------------------------------------------------


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=_TIMEOUT)


def namespaces_missing() -> str | None:
    """Return why there can be no network namespaces with a cable between them here, or None."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    try:
        TwoHosts().close()
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces are not allowed here: {error}"
    return None


class TwoHosts:
    """Two hosts with a cable between them: the root's at 10.77.0.1, the worker's at 10.77.0.2."""

    WORKER = "10.77.0.2"

    def __init__(self) -> None:
        pid = os.getpid()
        self._names = [f"dllama-{pid}-root", f"dllama-{pid}-worker"]
        devices = [f"root{pid}", f"worker{pid}"]
        self.cable = Cable(*devices)
        try:
            for number, (name, device) in enumerate(zip(self._names, devices, strict=True), start=1):
                _ip("netns", "add", name)
                _ip("link", "set", device, "netns", name)
                _ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", device)
                _ip("-n", name, "link", "set", device, "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def on_root(self) -> list[str]:
        """Return what to put before a command so that it runs on the root's host."""
        return ["ip", "netns", "exec", self._names[0]]

    def on_worker(self) -> list[str]:
        """Return what to put before a command so that it runs on the worker's host."""
        return ["ip", "netns", "exec", self._names[1]]

    def close(self) -> None:
        """Remove both."""
        self.cable.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=_TIMEOUT)


def end_of_session(worker: WorkerProcess, seconds: float) -> dict[str, Any]:
    """Return the line in which a worker tells how its session ended, which must come in time."""
    started = time.monotonic()
    entry = worker.wait_for("session_failed", "session_ended")
    took = time.monotonic() - started
    assert took <= seconds, f"the worker noticed after {took:.1f} s: {entry['message']}"
    assert "\n" not in entry["message"]
    assert entry["level"] != "error", entry
    return entry
