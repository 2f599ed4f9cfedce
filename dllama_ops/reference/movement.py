"""Rows that move or change their type: EMBEDDING, CAST, REPEAT_Z, SHIFT."""

from __future__ import annotations

import numpy as np

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.params import ShiftParams
from dllama_ops.reference._kernel import (
    ReferenceKernel,
    WeightedKernel,
    params_of,
    read_bytes,
    read_rows,
    write_bytes,
    write_rows,
)

__all__ = ["Cast", "Copy", "Embedding", "RepeatZ", "Shift"]


class Embedding(WeightedKernel):
    """EMBEDDING F32_F32_F32 and F32_F32_Q80: weight (vocab, n), tokens (b, 1) -> out (b, n).

    C++ ``embeddingForward_F32_F32_F32`` and ``embeddingForward_F32_F32_Q80``.
    """

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the rows looked up, and what writing them takes."""
        n_values = batch_values(context, context.output)
        return 4 * n_values + write_bytes(context, context.output, n_values)

    def compute(self, batch_size: int) -> None:
        """Copy or quantise the weight's row of each token. Raises KernelDataError."""
        tokens = self.indexes("tokens", self.context.input, batch_size, self.spec.y)[:, 0]
        rows = self.weight.view(np.float32).reshape(self.spec.y, self.spec.x)
        write_rows(self.context.output, batch_size, rows[None, tokens])


class Cast(ReferenceKernel):
    """CAST between different types: F32_F32_Q80 and Q80_Q80_F32.

    C++ ``castForward_F32_Q80`` and ``castForward_Q80_F32``.
    """

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count the rows read as float32, and what writing them takes."""
        n_values = batch_values(context, context.input)
        return read_bytes(context, context.input) + write_bytes(context, context.output, n_values)

    def compute(self, batch_size: int) -> None:
        """Convert the rows of each z."""
        write_rows(self.context.output, batch_size, read_rows(self.context.input, batch_size))


class Copy(ReferenceKernel):
    """CAST without conversion: F32_F32_F32 and Q80_Q80_Q80. C++ ``castForward_ANY``.

    C++ copies z rows where it should copy one, and so changes rows past the batch; this does not.
    """

    def compute(self, batch_size: int) -> None:
        """Copy the rows of each z."""
        self.context.output.data[:, :batch_size] = self.context.input.data[:, :batch_size]


class RepeatZ(ReferenceKernel):
    """REPEAT_Z F32_F32_Q80 (C++ ``repeatZForward_F32_Q80``) and F32_F32_F32 (which C++ lacks)."""

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count what writing the input's rows takes."""
        return write_bytes(context, context.output, batch_values(context, context.input))

    def compute(self, batch_size: int) -> None:
        """Write the input's rows to every z of the output."""
        write_rows(self.context.output, batch_size, self.context.input.data[:, :batch_size])


class Shift(ReferenceKernel):
    """SHIFT F32_F32_F32: x (b, n), indexes (b, 1) -> out (positions, n). C++ ``shiftForward_F32_F32``."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._indexes = params_of(context, ShiftParams).indexes
        self._rows = context.output.data.reshape(-1, context.input.x)

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count a copy of the input's rows."""
        return 4 * batch_values(context, context.input)

    def compute(self, batch_size: int) -> None:
        """Store each row at its index. Raises KernelDataError."""
        indexes = self.indexes("indexes", self._indexes, batch_size, len(self._rows))[:, 0]
        self._rows[indexes] = self.context.input.data[0, :batch_size]
