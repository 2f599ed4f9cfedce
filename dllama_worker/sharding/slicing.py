"""Which part of a stored tensor a node holds: rows, columns, or all of it, in whole blocks.

Sources: C++ ``splitRowMatmulWeight`` and ``splitColMatmulWeight`` (``nn-core.cpp``). Rows lie next to each
other in the file and are taken from it without a copy; columns are strided and copied only when their bytes
are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dllama_proto.enums import FloatType
from dllama_proto.floats import BLOCK_SIZE, n_bytes
from dllama_proto.model_file import TensorEntry
from dllama_worker.model.source import ModelSource

__all__ = ["TensorSlice", "block_size"]


def block_size(float_type: FloatType) -> int:
    """Return how many values cannot be parted: 32 in Q40 and Q80, else 1 (C++ ``getBlockSize``)."""
    return BLOCK_SIZE if float_type in (FloatType.Q40, FloatType.Q80) else 1


@dataclass(frozen=True, slots=True)
class TensorSlice:
    """Rows and columns of a stored tensor, both as ranges of values.

    Raises ValueError where they reach past the tensor or part a block.
    """

    entry: TensorEntry
    rows: range
    columns: range

    def __post_init__(self) -> None:
        for name, part, size, unit in (
            ("rows", self.rows, self.entry.d, 1),
            ("columns", self.columns, self.entry.n, block_size(self.entry.float_type)),
        ):
            if part.step != 1 or not 0 <= part.start < part.stop <= size:
                raise ValueError(f"{name} {part.start} to {part.stop} are not a part of {self.entry}")
            if part.start % unit or part.stop % unit:
                raise ValueError(
                    f"{name} {part.start} to {part.stop} of {self.entry} part a block of {unit}"
                )

    @classmethod
    def whole(cls, entry: TensorEntry) -> TensorSlice:
        """Take all of a tensor."""
        return cls(entry, range(entry.d), range(entry.n))

    @classmethod
    def of_rows(cls, entry: TensorEntry, rows: range) -> TensorSlice:
        """Take whole rows: some of the outputs of a matmul."""
        return cls(entry, rows, range(entry.n))

    @classmethod
    def of_columns(cls, entry: TensorEntry, columns: range) -> TensorSlice:
        """Take some columns of every row: some of the inputs of a matmul."""
        return cls(entry, range(entry.d), columns)

    @property
    def n_bytes(self) -> int:
        """Bytes of the slice when its rows stand next to each other."""
        return n_bytes(self.entry.float_type, len(self.rows) * len(self.columns))

    def parts(self, max_bytes: int) -> Iterator[TensorSlice]:
        """Cut the slice into runs of whole rows of up to ``max_bytes`` each, at least a row."""
        n_rows = max(1, max_bytes * len(self.rows) // self.n_bytes)
        for start in range(self.rows.start, self.rows.stop, n_rows):
            rows = range(start, min(start + n_rows, self.rows.stop))
            yield TensorSlice(self.entry, rows, self.columns)

    def view(self, model: ModelSource) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the slice, (rows, columns) or (rows, columns / 32) blocks: a view of the file if it can be."""
        unit = block_size(self.entry.float_type)
        units = model.rows(self.entry, self.rows)
        return units[:, self.columns.start // unit : self.columns.stop // unit]

    def data(self, model: ModelSource) -> memoryview:
        """Return the slice's bytes as they travel: a view of the file, or a copy where it has gaps."""
        packed = np.ascontiguousarray(self.view(model))
        return packed.reshape(-1).view(np.uint8).data
