"""How a file is opened that somebody named: what is no file, or cannot be as large as that, is said at once.

Opening a named pipe waits until somebody writes to it, and some devices never end: a command that needs a file
of a certain kind would hang there, or fill the memory.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["MAX_TEXT_BYTES", "check_regular", "open_regular", "read_at_most"]

#: More text than any context holds.
MAX_TEXT_BYTES = 64 * 1024 * 1024

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path) -> None:
    """Raise OSError where there is something else than a file, of the errno that a socket has; or nothing."""
    mode = path.stat().st_mode
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise OSError(errno.ENXIO, f"expected a file, got {name}", str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for pipes, sockets and devices."""
    check_regular(path)
    return path.open("rb")


def read_at_most(path: Path, max_bytes: int) -> bytes:
    """Return all of a file, or of a pipe that somebody writes to. Raises OSError where it has more."""
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, got more", str(path))
    return data
