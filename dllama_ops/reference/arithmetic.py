"""Products and sums of rows: MUL, SCALE, MERGE_ADD, MERGE_SUM."""

from __future__ import annotations

import numpy as np

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.params import MulParams, ScaleParams
from dllama_ops.reference._kernel import F32Array, ReferenceKernel, params_of, read_bytes, read_rows

__all__ = ["MergeAdd", "MergeSum", "Mul", "Scale", "merge_add", "merge_sum", "mul"]


def merge_add(out: F32Array, x: F32Array) -> None:
    """``out += Σ slices``, one slice from each node: x (b, nodes · n) -> out (b, n).

    C++ ``add_F32`` and ``add_Q80_F32``, once a slice.
    """
    out += x.reshape(len(x), -1, out.shape[-1]).sum(axis=1)


def merge_sum(out: F32Array, x: F32Array) -> None:
    """``out = Σ_z x``: x (z, b, n) -> out (b, n). C++ ``mergeSum_F32``."""
    np.sum(x, axis=0, out=out)


def mul(out: F32Array, x: F32Array, y: F32Array) -> None:
    """``out = x · y``, by element (C++ ``mul_F32``) or with y (z, b, 1) by row (C++ ``scale_F32``)."""
    np.multiply(x, y, out=out)


class MergeAdd(ReferenceKernel):
    """MERGE_ADD F32_F32_F32 and Q80_Q80_F32."""

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the slices read as float32, and their sum."""
        return read_bytes(context, context.input) + 4 * batch_values(context, context.output)

    def compute(self, batch_size: int) -> None:
        """Add every node's slice of a row to the output's row."""
        merge_add(self.context.output.data[0, :batch_size], read_rows(self.context.input, batch_size)[0])


class MergeSum(ReferenceKernel):
    """MERGE_SUM F32_F32_F32."""

    def compute(self, batch_size: int) -> None:
        """Sum the rows over z."""
        merge_sum(self.context.output.data[0, :batch_size], self.context.input.data[:, :batch_size])


class Mul(ReferenceKernel):
    """MUL F32_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._multiplier = params_of(context, MulParams).multiplier.data

    def compute(self, batch_size: int) -> None:
        """Multiply rows with the multiplier's."""
        x, out = self.context.input.data, self.context.output.data
        mul(out[:, :batch_size], x[:, :batch_size], self._multiplier[:, :batch_size])


class Scale(ReferenceKernel):
    """SCALE F32_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._scale = params_of(context, ScaleParams).scale.data

    def compute(self, batch_size: int) -> None:
        """Multiply each row of each z with its own number."""
        x, out = self.context.input.data, self.context.output.data
        mul(out[:, :batch_size], x[:, :batch_size], self._scale[:, :batch_size])
