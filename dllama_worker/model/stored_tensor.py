"""A matrix as another project's file stores it, and its rows as nodes hold them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from dllama_ops.quantization.decode import decode
from dllama_ops.quantization.ggml_types import GgmlType
from dllama_ops.quantization.requantize import quantize_like_converter
from dllama_proto.bounded_text import quoted
from dllama_proto.enums import FloatType
from dllama_proto.floats import BLOCK_SIZE, Q40_BLOCK, Q80_BLOCK, storage_dtype
from dllama_worker.errors import UsageError
from dllama_worker.model.mapped_file import MappedFile

__all__ = ["StoredTensor", "as_stored"]

#: Stored blocks that are the nodes' own, byte for byte.
_SAME = MappingProxyType(
    {GgmlType.F32: FloatType.F32, GgmlType.Q4_0: FloatType.Q40, GgmlType.Q8_0: FloatType.Q80}
)


def as_stored(ggml_type: GgmlType) -> FloatType | None:
    """Return the type in which nodes have the very bytes of a stored type, None where they have none."""
    return _SAME.get(ggml_type)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """``d`` rows of ``n`` values of a type, from byte ``offset`` of a file.

    ``pair_dim`` is the width of heads whose rows are stored half-split (row i beside row i + pair_dim / 2) and
    wanted interleaved, 0 where rows are wanted as they stand. All values are multiplied by ``scale``.
    """

    file: MappedFile
    name: str
    ggml_type: GgmlType
    offset: int
    d: int
    n: int
    pair_dim: int = 0
    scale: float = 1.0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.n // self.ggml_type.block_values * self.ggml_type.block_bytes

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return self.d * self.row_bytes

    def rows(self, rows: range, float_type: FloatType) -> npt.NDArray[Any]:
        """Return rows as nodes hold them: (rows, n) numbers or (rows, n / 32) blocks; a view where possible.

        Raises UsageError where a stored scale is no number.
        """
        stored = self._stored(rows)
        if as_stored(self.ggml_type) is float_type:
            units = stored.view(storage_dtype(float_type)).reshape(len(rows), -1)
            self._check_scales(units, rows)
            return units if self.scale == 1.0 else _scaled(units, self.scale)
        values = np.empty((len(rows), self.n), dtype=np.float32)
        decode(self.ggml_type, np.ascontiguousarray(stored).reshape(-1), values.reshape(-1))
        if not np.isfinite(values).all():
            raise self._damaged(rows)
        values *= np.float32(self.scale)
        if float_type is FloatType.F32:
            return values
        if float_type is not FloatType.Q40:
            raise ValueError(f"weights are turned into F32 or Q40, not into {float_type.name}")
        return quantize_like_converter(values.reshape(-1)).reshape(len(rows), self.n // BLOCK_SIZE)

    def release(self, rows: range) -> None:
        """Let the system take back the memory through which rows were read."""
        rows = self._whole_heads(rows)
        self.file.release(
            self.offset + rows.start * self.row_bytes, self.offset + rows.stop * self.row_bytes
        )

    def _stored(self, rows: range) -> npt.NDArray[np.uint8]:
        source = self._whole_heads(rows)
        start = self.offset + source.start * self.row_bytes
        stored = self.file.data[start : start + len(source) * self.row_bytes].reshape(len(source), -1)
        if not self.pair_dim:
            return stored
        wanted = np.arange(rows.start, rows.stop)
        head, place = wanted - wanted % self.pair_dim, wanted % self.pair_dim
        at = head + place % 2 * (self.pair_dim // 2) + place // 2 - source.start
        gathered: npt.NDArray[np.uint8] = stored[at]
        return gathered

    def _whole_heads(self, rows: range) -> range:
        """Return the rows that are read for some: with pairs, their whole heads."""
        if not self.pair_dim:
            return rows
        return range(
            rows.start // self.pair_dim * self.pair_dim,
            -(-rows.stop // self.pair_dim) * self.pair_dim,
        )

    def _check_scales(self, units: npt.NDArray[Any], rows: range) -> None:
        numbers = units["d"] if units.dtype in (Q40_BLOCK, Q80_BLOCK) else units
        if not np.isfinite(numbers).all():
            raise self._damaged(rows)

    def _damaged(self, rows: range) -> UsageError:
        return UsageError(
            f"{self.file.path}: tensor {quoted(self.name)} has a scale or value that is no number, in rows "
            f"{rows.start} to {rows.stop - 1}: the file is damaged, download it again"
        )


def _scaled(units: npt.NDArray[Any], scale: float) -> npt.NDArray[Any]:
    """Return numbers, or blocks, a factor larger: of blocks only the scale changes, and is rounded once more."""
    if units.dtype not in (Q40_BLOCK, Q80_BLOCK):
        larger: npt.NDArray[Any] = units * np.float32(scale)
        return larger
    blocks = units.copy()
    blocks["d"] = (units["d"].astype(np.float32) * np.float32(scale)).astype("<f2")
    return blocks
