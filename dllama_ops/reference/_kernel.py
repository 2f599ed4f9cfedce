"""What all reference kernels share: quiet arithmetic, a weight in wire layout, checked indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dllama_ops.errors import KernelDataError, WeightPieceError
from dllama_ops.kernel import BaseKernel, OpContext, WeightData
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import dequantize_q80, quantize_q80

__all__ = ["F32Array", "ReferenceKernel", "WeightedKernel", "params_of", "read_rows", "write_rows"]

F32Array = npt.NDArray[np.float32]

_Params = TypeVar("_Params")


class ReferenceKernel(BaseKernel, ABC):
    """A kernel in NumPy. What overflows or has no value becomes infinite or NaN in silence, as in C++."""

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
            op = f"{self.context.key} {self.context.name!r} of layer {self.context.index}"
            raise KernelDataError(op, what, float(values[~valid][0]), bound)
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
            raise TypeError(f"{self.context.key} {self.context.name!r} needs a weight")
        return self.context.weight

    @property
    def weight(self) -> npt.NDArray[Any]:
        """The weight's memory, as bytes."""
        return self._memory

    def weight_view(self, offset: int, n_bytes: int) -> memoryview:
        """Return the weight's own memory for a piece. Raises WeightPieceError where it does not fit."""
        if offset < 0 or n_bytes < 0 or offset + n_bytes > self._memory.nbytes:
            raise WeightPieceError(
                f"{self.context.key} {self.context.name!r}: expected pieces within the weight's "
                f"{self._memory.nbytes} bytes, got {n_bytes} bytes at {offset}"
            )
        if self._finished:
            raise WeightPieceError(
                f"{self.context.key} {self.context.name!r}: expected no more pieces, the weight is finished"
            )
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


def write_rows(tensor: Tensor, batch_size: int, values: F32Array) -> None:
    """Store float32 (z or 1, batch_size, x) into the first rows of each z, quantising to Q80."""
    rows = tensor.data[:, :batch_size]
    rows[...] = quantize_q80(values) if tensor.float_type is FloatType.Q80 else values
