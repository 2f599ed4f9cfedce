"""A file on a disk that is full: nothing written to it is ever kept."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FULL_DISK"]

#: Linux has it, macOS does not.
FULL_DISK = Path("/dev/full")
