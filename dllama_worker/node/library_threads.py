"""How many threads the matrix library under NumPy may use; this has to be known before NumPy is loaded."""

from __future__ import annotations

import os

from dllama_worker.node.machine import usable_cores

__all__ = ["limit_library_threads"]


def limit_library_threads(n_threads: int) -> None:
    """Bound the threads of NumPy's matrix library; it reads this once, when it is loaded.

    It starts them all at once, whether it needs them or not, and a process may not have so many: so there is never
    more than one for each core.
    """
    n_threads = min(n_threads, usable_cores())
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, str(n_threads))
