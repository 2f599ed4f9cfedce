"""Standard input, output and error as a command needs them: there, and able to take any letter."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["open_standard_streams"]


def open_standard_streams() -> None:
    """Put /dev/null where a stream was closed (``<&-``, ``>&-``, ``2>&-``), and escapes for letters it lacks.

    Otherwise the next file or socket gets the descriptor of the closed stream, and what is meant for a terminal
    would be written there.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(descriptor, "w" if descriptor else "r"))
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and not out.encoding.lower().startswith("utf"):
        out.reconfigure(errors="backslashreplace")


def _nowhere(descriptor: int, mode: str) -> io.TextIOBase:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest that is free is this one: those below are open, or have just been opened.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    else:
        descriptor = os.open(os.devnull, os.O_RDWR)
    binary = io.FileIO(descriptor, mode, closefd=False)
    buffered = io.BufferedReader(binary) if mode == "r" else io.BufferedWriter(binary)
    return io.TextIOWrapper(buffered, encoding="utf-8")
