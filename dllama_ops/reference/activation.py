"""Activations, each in place: GELU, SILU, SOFTMAX.

SILU and SOFTMAX use the exponential of the C++ program's x86 build, a polynomial that is off by 1e-5, and the
exact one for the last values of a row, where that has no full vector of 8. With another exponential one value
in a thousand falls on the other side of a rounding when activations are quantised, and all that follows
drifts away from the other nodes' by percents; with this one it hardly ever does.
"""

from __future__ import annotations

from math import e, factorial, log, log2, pi, sqrt

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.reference._kernel import F32Array, ReferenceKernel

__all__ = ["Gelu", "Silu", "Softmax", "exp", "exp_bytes", "gelu", "silu", "softmax", "softmax_bytes"]

_SQRT_2_OVER_PI = np.float32(sqrt(2 / pi))
_GELU_COEF_A = np.float32(0.044715)

#: Values that the C++ program computes at once.
_VECTOR = 8
_LOG2_E = np.float32(log2(e))
#: Of 2^x between -1/2 and 1/2, from x^4 down: ln(2)^k / k!.
_EXP_POLYNOMIAL = tuple(np.float32(log(2) ** k / factorial(k)) for k in (4, 3, 2, 1, 0))
#: Values that ``exp`` takes at a time: its temporary memory stays within a megabyte, and in a core's cache.
_CHUNK = 1 << 16


def gelu(x: F32Array) -> None:
    """``x = x/2 · (1 + tanh(√(2/π) · x · (1 + 0.044715 x²)))``, any shape, in place. C++ ``gelu_F32``."""
    inner = np.square(x)
    inner *= _GELU_COEF_A
    inner += np.float32(1)
    inner *= x
    inner *= _SQRT_2_OVER_PI
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= np.float32(0.5)
    x *= inner


def exp(x: F32Array) -> None:
    """``x = e^x``, any shape, in place, the last axis in pieces. C++ ``expf_avx2``.

    2^(x · log2(e)), as the whole part's power of two times a polynomial of the rest. At -88 and below, and of
    NaN, it is 0; above 88 it stays as at 88.
    """
    n_rows = x.size // x.shape[-1]
    step = max(_VECTOR, _CHUNK // n_rows)
    for start in range(0, x.shape[-1], step):
        piece = x[..., start : start + step]
        np.fmax(piece, np.float32(-88), out=piece)
        np.fmin(piece, np.float32(88), out=piece)
        piece *= _LOG2_E
        whole = np.rint(piece)
        piece -= whole
        powers = whole.astype(np.int32)
        powers += 127
        powers <<= 23
        polynomial = np.multiply(piece, _EXP_POLYNOMIAL[0], out=whole)
        for coefficient in _EXP_POLYNOMIAL[1:-1]:
            polynomial += coefficient
            polynomial *= piece
        polynomial += _EXP_POLYNOMIAL[-1]
        np.multiply(polynomial, powers.view(np.float32), out=piece)


def exp_bytes(n_rows: int) -> int:
    """Return the bytes that :func:`exp` takes for so many rows: three arrays of a piece."""
    return 12 * max(_CHUNK, _VECTOR * n_rows)


def silu(x: F32Array) -> None:
    """``x = x / (1 + e^-x)``, any shape, in place. C++ ``silu_F32``."""
    denominator = np.negative(x)
    n = x.shape[-1] - x.shape[-1] % _VECTOR
    if n:
        exp(denominator[..., :n])
    np.exp(denominator[..., n:], out=denominator[..., n:])
    denominator += np.float32(1)
    x /= denominator


def softmax(x: F32Array, lengths: npt.NDArray[np.intp]) -> None:
    """``x = e^(x - max) / Σ e^(x - max)`` of each row's first values, 0 for the others, in place.

    x (…, n), lengths (…, 1) in 1..n or broadcast to it. C++ ``softmax_F32``.
    """
    columns = np.arange(x.shape[-1])
    np.copyto(x, np.float32(-np.inf), where=columns >= lengths)
    x -= x.max(axis=-1, keepdims=True)
    # Rows may end at different places; what lies beyond the end is 0 by either exponential.
    ends = lengths - lengths % _VECTOR
    first = int(ends.min())
    last = x[..., first:]
    exact = np.broadcast_to(columns[first:] >= ends, last.shape)
    last_values = np.exp(last[exact])
    exp(x)
    last[exact] = last_values
    total = x.sum(axis=-1, keepdims=True)
    np.copyto(total, np.float32(1e-6), where=total == 0)
    x *= np.float32(1) / total


def softmax_bytes(n_rows: int, width: int) -> int:
    """Return the bytes that :func:`softmax` takes: column numbers, masks, values apart, sums, an exponential."""
    return 10 * n_rows * width + 16 * width + 16 * n_rows + exp_bytes(n_rows)


class Gelu(ReferenceKernel):
    """GELU F32_F32_F32."""

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their GELU."""
        gelu(self.context.output.data[:, :batch_size])


class Silu(ReferenceKernel):
    """SILU F32_F32_F32."""

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the denominators, and what the exponential takes."""
        output = context.output
        return 4 * batch_values(context, output) + exp_bytes(output.z * context.n_batches)

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their SiLU."""
        silu(self.context.output.data[:, :batch_size])


class Softmax(ReferenceKernel):
    """SOFTMAX F32_F32_F32."""

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count what the softmax of all rows takes."""
        return softmax_bytes(context.output.z * context.n_batches, context.output.x)

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their softmax."""
        x = self.context.output.data[:, :batch_size]
        softmax(x, np.array([x.shape[-1]]))
