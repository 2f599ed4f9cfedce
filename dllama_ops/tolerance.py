"""How far a kernel may be from the recorded or reference result, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ANGLES", "EXACT", "EXPONENTIALS", "SUMS", "Tolerance"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Allows a difference of ``absolute`` plus ``relative`` times the largest magnitude of the row."""

    relative: float = 0.0
    absolute: float = 0.0

    def excess(
        self, came: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Return by how much each value is too far off, 0 or less where it isn't; rows on the last axis.

        Values that are both NaN, or the same infinity, agree.
        """
        a, b = came.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            difference = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference[same] = 0.0
        difference[np.isnan(difference)] = np.inf
        largest = np.abs(b, where=np.isfinite(b), out=np.zeros_like(b)).max(axis=-1, keepdims=True)
        return np.asarray(difference - (self.absolute + self.relative * largest))


#: Bits are the same.
EXACT = Tolerance()

#: Sums in float32, in whatever order: C++ itself is 2e-7 of the row's largest magnitude from the true sum.
SUMS = Tolerance(relative=1e-5)

#: Anything with an exponential: C++ computes it by polynomial, 2e-5 from the truth.
EXPONENTIALS = Tolerance(absolute=5e-5)

#: Cosines and sines of angles up to hundreds: float32 has lost the digits beyond.
ANGLES = Tolerance(absolute=1e-5)
