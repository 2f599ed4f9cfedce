"""What a kernel reads and writes: rows of numbers in memory that somebody else owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dllama_proto.enums import FloatType
from dllama_proto.floats import is_whole_blocks, n_bytes, storage_dtype

__all__ = ["Tensor", "WeightSpec"]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Rows ``[z][y]`` of ``x`` values, as an op sees them through its pointer.

    ``data`` has shape (z, y, x) and dtype float32, or (z, y, x / 32) and dtype ``Q40_BLOCK`` or
    ``Q80_BLOCK``. It is a view of a pipe or a buffer: the last axis is contiguous, the others are strided
    where the op sees only a slice of the columns. Writing to it writes to the node's memory.
    """

    float_type: FloatType
    data: np.ndarray[Any, np.dtype[Any]]

    @property
    def z(self) -> int:
        """Depth: 1, or the number of active experts."""
        return int(self.data.shape[0])

    @property
    def y(self) -> int:
        """Rows: the largest batch, or the positions of a cache."""
        return int(self.data.shape[1])

    @property
    def x(self) -> int:
        """Values a row."""
        return int(self.data.shape[2]) * (32 if self.data.dtype.fields else 1)

    @classmethod
    def over(cls, float_type: FloatType, memory: Any, *, z: int, y: int, x: int) -> Tensor:
        """View a byte buffer as a whole [z][y][x] tensor.

        Raises ValueError where rows are not whole blocks or the buffer has another size.
        """
        if not is_whole_blocks(float_type, x):
            raise ValueError(f"expected rows of whole {float_type.name} blocks, got rows of length {x}")
        units = np.frombuffer(memory, dtype=storage_dtype(float_type))
        if units.nbytes != n_bytes(float_type, z * y * x):
            raise ValueError(
                f"{float_type.name} [{z}][{y}][{x}] takes {n_bytes(float_type, z * y * x)} bytes, "
                f"the buffer has {units.nbytes}"
            )
        return cls(float_type, units.reshape(z, y, -1))

    def columns(self, start: int, stop: int) -> Tensor:
        """View only the columns ``start`` to ``stop`` (values, whole blocks)."""
        unit = 32 if self.data.dtype.fields else 1
        return Tensor(self.float_type, self.data[:, :, start // unit : stop // unit])

    def raw(self) -> Tensor:
        """View all of it as one row (the wire's *raw* pointer); only for whole tensors."""
        return Tensor(self.float_type, self.data.reshape(1, 1, -1))


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """Type and shape of an op's weight: memory order [z][x][y], z experts, x outputs (rows), y inputs.

    Norm weights have y = 1 and x values. The bytes arrive in pieces in that order, as on the wire.
    """

    float_type: FloatType
    z: int
    y: int
    x: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole weight."""
        return n_bytes(self.float_type, self.z * self.y * self.x)
