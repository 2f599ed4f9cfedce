"""Root mean square normalisation, in two ops: INV_RMS finds the factors, RMS_NORM applies them."""

from __future__ import annotations

import numpy as np

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.params import InvRmsParams, RmsNormParams
from dllama_ops.reference._kernel import (
    F32Array,
    ReferenceKernel,
    WeightedKernel,
    params_of,
    read_bytes,
    read_rows,
)

__all__ = ["InvRms", "RmsNorm", "inv_rms", "rms_norm"]


def inv_rms(out: F32Array, x: F32Array, epsilon: float) -> None:
    """``out = 1 / √(mean(x²) + ε)`` of each group: x (b, groups, n) -> out (b, groups).

    C++ ``invRms_F32``.
    """
    np.einsum("bgn,bgn->bg", x, x, out=out)
    out /= np.float32(x.shape[-1])
    out += np.float32(epsilon)
    np.sqrt(out, out=out)
    np.reciprocal(out, out=out)


def rms_norm(out: F32Array, x: F32Array, factors: F32Array, weight: F32Array) -> None:
    """``out = weight · (factor · x)``: x (b, groups, n), factors (b, groups), weight (n,) -> out as x.

    C++ ``rmsNorm_F32`` and ``rmsNorm_Q80_F32_F32``. ``out`` may be ``x``.
    """
    np.multiply(x, factors[..., None], out=out)
    out *= weight


class InvRms(ReferenceKernel):
    """INV_RMS F32_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        params = params_of(context, InvRmsParams)
        n_batches, groups = context.n_batches, params.n_columns
        self._x = context.input.data[0].reshape(n_batches, groups, -1)
        self._out = context.output.data[0, :, :groups]
        self._epsilon = params.epsilon

    def compute(self, batch_size: int) -> None:
        """Write one factor for each group of a row; the output's other columns stay."""
        inv_rms(self._out[:batch_size], self._x[:batch_size], self._epsilon)


class RmsNorm(WeightedKernel):
    """RMS_NORM F32_F32_F32 and Q80_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        params = params_of(context, RmsNormParams)
        self._groups = params.n_columns
        self._factors = params.inv_rms.data[0, :, : params.n_columns]

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the rows read as float32, and the product where it cannot be made in place."""
        return read_bytes(context, context.input) + 4 * batch_values(context, context.output)

    def compute(self, batch_size: int) -> None:
        """Normalise each group of a row with its own factor and the weight that all share."""
        x = read_rows(self.context.input, batch_size)[0].reshape(batch_size, self._groups, -1)
        out = self.context.output.data[0, :batch_size].reshape(batch_size, self._groups, -1)
        rms_norm(out, x, self._factors[:batch_size], self.weight.view(np.float32))
