"""How many threads the matrix library under NumPy may use; this has to be known before NumPy is loaded."""

from __future__ import annotations

import os

__all__ = ["limit_library_threads"]


def limit_library_threads(n_threads: int) -> None:
    """Bound the threads of NumPy's matrix library; it reads this once, when it is loaded."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, str(n_threads))
