"""What all reference kernels share: quiet arithmetic, a weight in wire layout, checked indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dllama_ops.errors import KernelDataError, WeightPieceError
from dllama_ops.kernel import BaseKernel, OpContext, WeightData
from dllama_ops.memory_need import KernelNeed, batch_values
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import dequantize_q80, quantize_q80

__all__ = [
    "F32Array",
    "ReferenceKernel",
    "WeightedKernel",
    "params_of",
    "read_bytes",
    "read_rows",
    "write_bytes",
    "write_rows",
]

#: Objects and small arrays that any kernel takes while it runs, NumPy's buffers for its loops among them.
_SMALL = 1 << 18
#: What checking and using one index takes: the number in 64 bits, a few masks and copies.
_INDEX_BYTES = 64

F32Array = npt.NDArray[np.float32]

_Params = TypeVar("_Params")


class ReferenceKernel(BaseKernel, ABC):
    """A kernel in NumPy. What overflows or has no value becomes infinite or NaN in silence, as in C++."""

    @classmethod
    def memory_need(cls, context: OpContext) -> KernelNeed:
        """Return what such a kernel takes: its weight as on the wire, and arrays while it runs."""
        return KernelNeed(
            weight=context.weight.n_bytes if context.weight else 0,
            passing=_SMALL + context.n_batches * _INDEX_BYTES + cls.passing_bytes(context),
        )

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Return the bytes of arrays that come and go, at most: here the output's rows as float32, once."""
        return 4 * batch_values(context, context.output)

    def forward(self, batch_size: int) -> None:
        """Compute the first ``batch_size`` rows of each z. Raises KernelDataError."""
        with np.errstate(all="ignore"):
            self.compute(batch_size)

    @abstractmethod
    def compute(self, batch_size: int) -> None:
        """Do what ``forward`` promises."""

    def indexes(self, what: str, numbers: Tensor, batch_size: int, bound: int) -> npt.NDArray[np.intp]:
        """Return the numbers of the batch's rows as indexes: F32 [1][n_batches][n] -> (batch_size, n).

        Fractions are cut off, as in C++. Raises KernelDataError where one is not in 0..bound-1.
        """
        values = numbers.data[0, :batch_size]
        valid = (values >= 0) & (values < bound)
        if not valid.all():
            raise KernelDataError(self.context.where, what, float(values[~valid][0]), bound)
        return values.astype(np.intp)


class WeightedKernel(ReferenceKernel):
    """A kernel with a weight, kept in one piece of memory in the order of the wire."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._memory = np.zeros(self.spec.n_bytes, np.uint8)
        self._finished = False

    @property
    def spec(self) -> WeightSpec:
        """The weight's type and shape."""
        if self.context.weight is None:
            raise TypeError(f"{self.context.where} needs a weight")
        return self.context.weight

    @property
    def weight(self) -> npt.NDArray[Any]:
        """The weight's memory, as bytes."""
        return self._memory

    def weight_view(self, offset: int, n_bytes: int) -> memoryview:
        """Return the weight's own memory for a piece. Raises WeightPieceError where it does not fit."""
        if offset < 0 or n_bytes < 0 or offset + n_bytes > self._memory.nbytes:
            raise WeightPieceError(
                f"{self.context.where}: expected pieces within the weight's "
                f"{self._memory.nbytes} bytes, got bytes {offset} to {offset + n_bytes}"
            )
        if self._finished:
            raise WeightPieceError(f"{self.context.where}: expected no more pieces, the weight is finished")
        return self._memory.data[offset : offset + n_bytes]

    def load_weight(self, offset: int, data: WeightData) -> None:
        """Copy a piece into the weight. Raises WeightPieceError where it does not fit."""
        self.weight_view(offset, memoryview(data).nbytes)[:] = data

    def finish_weight(self) -> None:
        """Accept no more pieces."""
        self._finished = True


def params_of(context: OpContext, kind: type[_Params]) -> _Params:
    """Return an op's params as the record that its code calls for."""
    if not isinstance(context.params, kind):
        raise TypeError(f"expected {kind.__name__} for {context.key}, got {type(context.params).__name__}")
    return context.params


def read_rows(tensor: Tensor, batch_size: int) -> F32Array:
    """Return the first rows of each z as float32 (z, batch_size, x): themselves, or Q80 dequantised."""
    rows: npt.NDArray[Any] = tensor.data[:, :batch_size]
    return dequantize_q80(rows) if tensor.float_type is FloatType.Q80 else rows


def read_bytes(context: OpContext, tensor: Tensor) -> int:
    """Return the bytes that :func:`read_rows` takes: values and scales of Q80 as float32, else nothing."""
    return 5 * batch_values(context, tensor) if tensor.float_type is FloatType.Q80 else 0


def write_bytes(context: OpContext, tensor: Tensor, n_values: int) -> int:
    """Return the bytes that :func:`write_rows` takes for so many values.

    Quantising has three float32 arrays, masks and the blocks at once; without it there may be a copy, where
    the values overlap the rows.
    """
    return (18 if tensor.float_type is FloatType.Q80 else 4) * n_values


def write_rows(tensor: Tensor, batch_size: int, values: F32Array) -> None:
    """Store float32 (z or 1, batch_size, x) into the first rows of each z, quantising to Q80."""
    rows = tensor.data[:, :batch_size]
    rows[...] = quantize_q80(values) if tensor.float_type is FloatType.Q80 else values
