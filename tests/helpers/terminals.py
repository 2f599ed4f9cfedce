"""Commands on a pseudo-terminal of their own: what a person sees, and what a person types."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TerminalProcess", "on_terminal"]

_REPOSITORY = Path(__file__).parents[2]
_TIMEOUT = 60.0
#: Escape sequences that steer a terminal, as rich and prompt_toolkit write them.
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


class TerminalProcess:
    """A command whose standard input, output and error are one terminal; ``said`` is all that it wrote."""

    def __init__(self, module: str, *arguments: str, columns: int, environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_REPOSITORY,
            env={**inherited, "TERM": "xterm", "NO_COLOR": "1", **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(theirs)
        self.said = ""
        self._read_up_to = 0

    def wait_for(self, pattern: str) -> str:
        """Wait until what was said since the last wait matches; return it up to the end of the match."""
        deadline = time.monotonic() + _TIMEOUT
        while not (found := re.compile(pattern).search(self.said, self._read_up_to)):
            assert time.monotonic() < deadline, (pattern, self.said)
            assert self._read(1.0), (pattern, self.said)
        begin, self._read_up_to = self._read_up_to, found.end()
        return self.said[begin : found.end()]

    def type(self, keys: str) -> None:
        """Type keys, Ctrl-C as ``\\x03``."""
        os.write(self._ours, keys.encode())

    def wait(self) -> int:
        """Read until its end; return the exit code."""
        deadline = time.monotonic() + _TIMEOUT
        while self._read(1.0):
            assert time.monotonic() < deadline, self.said
        return self.process.wait(_TIMEOUT)

    def close(self) -> None:
        """End the process if it runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _read(self, timeout: float) -> bool:
        """Read what is there, or wait a while for it; False at the end."""
        if not select.select([self._ours], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux tells so that the other end is closed
            return False
        self.said += _CONTROL.sub("", data.decode("utf-8", "replace"))
        return bool(data)


@contextmanager
def on_terminal(
    module: str, *arguments: str, columns: int = 100, environment: Mapping[str, str] | None = None
) -> Iterator[TerminalProcess]:
    """Run a command for the length of a test."""
    process = TerminalProcess(module, *arguments, columns=columns, environment=environment or {})
    try:
        yield process
    finally:
        process.close()
