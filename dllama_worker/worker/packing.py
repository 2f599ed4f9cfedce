"""Parts of weights on their way from the socket to kernels: while one is packed, the next is received.

Packing takes a core, receiving mostly waits for the network. A node with more threads than one gives packing a
thread of its own; a node with one does both in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

__all__ = ["PART_BYTES", "Packing"]

#: Bytes received before they are handed over: few enough to be in a core's cache still when they are packed.
PART_BYTES = 1 << 19
#: Parts that may wait: one being packed, one ready, one being received, and one for the unevenness of networks.
_N_PARTS = 4


class Packing:
    """A context manager that owns the memory for parts and the thread that hands them over, if there is one.

    Parts are handed over one at a time, in the order in which they came.
    """

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="packing") if n_threads > 1 else None
        self._memory = [
            np.empty(PART_BYTES, dtype=np.uint8).data for _ in range(_N_PARTS if self._pool else 1)
        ]
        self._waiting: deque[tuple[Future[None], memoryview]] = deque()

    def __enter__(self) -> Packing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def memory(self, n_bytes: int) -> memoryview:
        """Return memory for a part of at most PART_BYTES, once some is free. Raises what handing over did."""
        if not self._memory:
            self._take_back()
        return self._memory[-1][:n_bytes]

    def hand_over(self, load: Callable[[memoryview], None], part: memoryview) -> None:
        """Have ``load(part)`` called; ``part`` is what :meth:`memory` returned last, filled."""
        if self._pool is None:
            load(part)
            return
        self._waiting.append((self._pool.submit(load, part), self._memory.pop()))

    def finish(self) -> None:
        """Wait until everything has been handed over. Raises what handing over did."""
        while self._waiting:
            self._take_back()

    def _take_back(self) -> None:
        future, memory = self._waiting.popleft()
        self._memory.append(memory)
        future.result()
