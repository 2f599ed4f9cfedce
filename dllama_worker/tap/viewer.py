"""What shows the messages that a tap passes on: ``dllama-proto dissect -`` in a process of its own.

Decoding takes its time there, and never the proxy's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO

from dllama_proto.exit_codes import ExitCode

__all__ = ["Viewer"]


class Viewer:
    """A running ``dllama-proto dissect``; it ends when :attr:`sink` is closed.

    ``ended`` is called once, by a thread, with the exit code, also where it ends by itself.
    """

    def __init__(self, arguments: Sequence[str], ended: Callable[[int], None]) -> None:
        """Start it. Raises OSError."""
        command = [sys.executable, "-u", "-m", "dllama_proto", *arguments]
        # Its own session: Ctrl-C ends the tap, and the end of the stream ends this.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
        if self._process.stdin is None:
            raise RuntimeError("a process was started with a pipe, and has none")
        #: Takes the bytes of a pcapng file.
        self.sink: IO[bytes] = self._process.stdin
        self._ended = ended
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has shown everything; close :attr:`sink` before."""
        self._thread.join()

    def _watch(self) -> None:
        code = self._process.wait()
        # A negative code is the signal that ended it.
        self._ended(code if code >= 0 else ExitCode.MACHINE)
