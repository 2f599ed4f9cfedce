"""A file through a memory map: nothing is read before it is used, and what was used can be let go."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from dllama_worker.errors import UsageError

__all__ = ["MappedFile"]


class MappedFile:
    """A file's bytes, read-only: ``data`` for NumPy, ``view`` for the rest.

    The map lasts as long as this object or any view of it does. Raises OSError where the file cannot be mapped,
    UsageError where it is empty.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise UsageError(f"{path}: is empty: was it downloaded whole?")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view = memoryview(self._map)
        self.data: np.ndarray[Any, np.dtype[np.uint8]] = np.frombuffer(self._map, dtype=np.uint8)

    def release(self, start: int, stop: int) -> None:
        """Let the system take back the memory through which bytes ``start`` to ``stop`` were read.

        They stay readable, from the file again. Without this a root that streams a model through the map seems to
        hold all of it.
        """
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = stop // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, start, length)
