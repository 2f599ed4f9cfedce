"""Activations, each in place: GELU, SILU, SOFTMAX."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from dllama_ops.reference._kernel import F32Array, ReferenceKernel

__all__ = ["Gelu", "Silu", "Softmax", "gelu", "silu", "softmax"]

_SQRT_2_OVER_PI = np.float32(sqrt(2 / pi))
_GELU_COEF_A = np.float32(0.044715)


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


def silu(x: F32Array) -> None:
    """``x = x / (1 + e^-x)``, any shape, in place. C++ ``silu_F32``."""
    denominator = np.negative(x)
    np.exp(denominator, out=denominator)
    denominator += np.float32(1)
    x /= denominator


def softmax(x: F32Array) -> None:
    """``x = e^(x - max) / Σ e^(x - max)`` over the last axis, any shape, in place. C++ ``softmax_F32``."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)


class Gelu(ReferenceKernel):
    """GELU F32_F32_F32."""

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their GELU."""
        gelu(self.context.output.data[:, :batch_size])


class Silu(ReferenceKernel):
    """SILU F32_F32_F32."""

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their SiLU."""
        silu(self.context.output.data[:, :batch_size])


class Softmax(ReferenceKernel):
    """SOFTMAX F32_F32_F32."""

    def compute(self, batch_size: int) -> None:
        """Replace the rows of each z by their softmax."""
        softmax(self.context.output.data[:, :batch_size])
