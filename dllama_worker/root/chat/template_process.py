"""The process that renders a chat template, started, asked and ended: what it may take is limited here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from dllama_worker import timeouts
from dllama_worker.errors import MachineError

__all__ = ["TemplateProcess"]

_PROGRAM = str(Path(__file__).with_name("template_program.py"))
#: Of the process, Python and Jinja included; templates of models take a few megabytes.
_MAX_BYTES = 1 << 29
#: A prompt that is longer fits into no context.
_MAX_ANSWER = 1 << 26


class TemplateProcess:
    """The process; it ends with this object, and with this process, however that ends."""

    def __init__(self) -> None:
        """Raise MachineError where it cannot be started."""
        limits = [str(_MAX_BYTES), str(math.ceil(timeouts.TEMPLATE) + 1)]
        try:
            self._process = subprocess.Popen(
                # Its folder is not where it imports from: there are modules of the names of others.
                [sys.executable, "-P", _PROGRAM, *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this process, which then ends it
            )
        except OSError as error:
            raise MachineError(
                f"cannot start a process for the chat template: {error.strerror or error}"
            ) from error
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self.end = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return its answer. Raises ValueError, in words for a person; after that it may have been ended."""
        try:
            answer: dict[str, Any] = json.loads(self._exchange(json.dumps(wanted).encode() + b"\n"))
        except BaseException:
            self.end()
            raise
        if "error" not in answer:
            return answer
        if answer["error"] is None:
            raise ValueError(f"it takes more than {_MAX_BYTES >> 20} MiB of memory")
        raise ValueError(answer["error"])

    def _exchange(self, line: bytes) -> bytes:
        with contextlib.suppress(BrokenPipeError):  # how it ended is told below
            self._stdin.write(line)
            self._stdin.flush()
        deadline = time.monotonic() + timeouts.TEMPLATE
        answer = bytearray()
        reading = select.poll()
        reading.register(self._stdout, select.POLLIN)
        while not answer.endswith(b"\n"):
            if not reading.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ValueError(f"it takes longer than {timeouts.TEMPLATE:g} s")
            part = os.read(self._stdout.fileno(), 1 << 16)
            if not part:
                raise ValueError(f"the process that renders it ended with code {self._process.wait()}")
            answer += part
            if len(answer) > _MAX_ANSWER:
                raise ValueError(f"it writes more than {_MAX_ANSWER >> 20} MiB")
        return bytes(answer)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
