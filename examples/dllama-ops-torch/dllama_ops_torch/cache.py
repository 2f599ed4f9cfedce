"""The key and value caches as a kernel on a device sees them.

Caches are the node's memory: SHIFT writes this batch's rows there, whichever plugin it comes from. On the CPU
attention reads them in place. Another device needs a copy, which is kept up to date row by row: between two
forwards of an attention op only the rows at the second one's positions have changed, for those are what
SHIFT has written since.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Cache", "CopiedCache", "HostCache"]


class Cache(Protocol):
    """Rows by position, (seq_len, kv_heads, head_dim) float32."""

    def rows(self, positions: npt.NDArray[np.intp]) -> torch.Tensor:
        """Return the rows 0 to the largest position, where a batch with these positions is computed."""


class HostCache:
    """The node's memory itself."""

    def __init__(self, memory: torch.Tensor) -> None:
        self._memory = memory

    def rows(self, positions: npt.NDArray[np.intp]) -> torch.Tensor:
        """Return a view of the node's memory."""
        return self._memory[: int(positions.max()) + 1]


class CopiedCache:
    """A copy on a device; ``n_copied`` counts the rows that were sent there."""

    def __init__(self, memory: torch.Tensor, device: torch.device) -> None:
        self._memory = memory
        self._copy = torch.empty(memory.shape, dtype=memory.dtype, device=device)
        self._has = np.zeros(len(memory), np.bool_)
        self.n_copied = 0

    def rows(self, positions: npt.NDArray[np.intp]) -> torch.Tensor:
        """Send the batch's rows, and any before them that were never sent; return the copy's rows."""
        end = int(positions.max()) + 1
        stale = ~self._has[:end]
        stale[positions] = True
        # One transfer from the first to the last: rows between are the same on both sides.
        changed = np.flatnonzero(stale)
        start, stop = int(changed[0]), int(changed[-1]) + 1
        self._copy[start:stop].copy_(self._memory[start:stop])
        self._has[start:stop] = True
        self.n_copied += stop - start
        return self._copy[:end]
