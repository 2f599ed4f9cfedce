"""A random case in the making: draws numbers and shapes, and lays out memory around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dllama_ops.cases.case import Memory, OpCase, View
from dllama_ops.kernel import KernelKey
from dllama_ops.params import NoParams, OpParams
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import n_bytes, quantize_q40, quantize_q80

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Draft", "Values", "encode"]

Values = npt.NDArray[np.float32]


class Draft:
    """A case in the making."""

    def __init__(self, key: KernelKey, seed: int) -> None:
        self.key = key
        self.seed = seed
        self.rng = np.random.default_rng([seed, key.code, key.quant])
        names = key.quant.name.split("_")
        self.input_type, self.weight_type, self.output_type = (FloatType[name] for name in names)
        self.n_batches = self.between(1, 9)
        self.batch_size = self.between(1, self.n_batches)
        self.memories: dict[str, Memory] = {}

    def between(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self) -> bool:
        """Toss a coin."""
        return self.between(0, 1) == 1

    def width(self, *float_types: FloatType) -> int:
        """Draw a row's width: whole blocks where a type has them, else anything."""
        if any(each is not FloatType.F32 for each in float_types):
            return 32 * self.between(1, 12)
        return self.between(1, 300)

    def normal(self, *shape: int, scale: float = 1.0) -> Values:
        """Draw float32 values."""
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def whole(self, *shape: int, below: int) -> Values:
        """Draw indexes, as float32."""
        return self.rng.integers(0, below, shape).astype(np.float32)

    def positions(self, seq_len: int) -> Values:
        """Draw positions (1, batch_size, 1): usually of one run of tokens, sometimes of any."""
        if self.chance() or self.batch_size > seq_len:
            return self.whole(1, self.batch_size, 1, below=seq_len)
        first = self.between(0, seq_len - self.batch_size)
        return np.arange(first, first + self.batch_size, dtype=np.float32).reshape(1, -1, 1)

    def raw(self, name: str) -> View:
        """Look at all of a memory as one row."""
        return View(name, raw=True)

    def buffer(self, name: str, values: Values, *, float_type: FloatType = FloatType.F32) -> None:
        """Add a whole memory (z, y, x) with these values."""
        z, y, x = values.shape
        self.memories[name] = Memory(float_type, z, y, x, encode(float_type, values).tobytes())

    def rows(
        self,
        name: str,
        *,
        x: int,
        z: int = 1,
        float_type: FloatType = FloatType.F32,
        values: Values | None = None,
        whole: bool = False,
        written: bool = False,
    ) -> View:
        """Add rows for the batch, of given values (z, batch_size, x).

        Rows past the batch, and those without values, are NaN where an op may only read, and random bits
        where it writes, so that writing what it has no business to write shows. Unless ``whole``, the rows
        may be a slice of a wider memory.
        """
        nodes = 1 if whole else (1, 1, 2, 4)[self.between(0, 3)]
        node = self.between(0, nodes - 1)
        shape = z, self.n_batches, n_bytes(float_type, nodes * x)
        units = self.rng.integers(0, 256, shape, np.uint8) if written else np.full(shape, 0xFF, np.uint8)
        part = n_bytes(float_type, x)
        if values is not None:
            encoded = encode(float_type, values).view(np.uint8).reshape(z, self.batch_size, part)
            units[:, : self.batch_size, node * part : (node + 1) * part] = encoded
        self.memories[name] = Memory(float_type, z, self.n_batches, nodes * x, units.tobytes())
        return View(name, (node * x, node * x + x) if nodes > 1 else None)

    def input(self, x: int, *, z: int = 1, values: Values | None = None, in_place: bool = False) -> View:
        """Add the input, with random values unless given."""
        values = self.normal(z, self.batch_size, x) if values is None else values
        return self.rows("in", x=x, z=z, float_type=self.input_type, values=values, written=in_place)

    def output(self, x: int, *, z: int = 1, values: Values | None = None) -> View:
        """Add the output, full of random bits unless given."""
        return self.rows("out", x=x, z=z, float_type=self.output_type, values=values, written=True)

    def params_rows(self, name: str, values: Values) -> None:
        """Add one of the params' memories: a row for each place of the batch."""
        self.rows(name, z=values.shape[0], x=values.shape[2], values=values, whole=True)

    def weight(self, z: int, y: int, x: int, values: Values) -> dict[str, Any]:
        """Return the fields of a case with this weight; values in memory order."""
        data = encode(self.weight_type, values.reshape(-1)).tobytes()
        return {"weight": WeightSpec(self.weight_type, z, y, x), "weight_bytes": data}

    def case(
        self,
        source: View,
        target: View,
        make_params: Callable[[Mapping[str, Tensor]], OpParams | DataclassInstance] | None = None,
        **fields: Any,
    ) -> OpCase:
        """Finish the case."""
        return OpCase(
            name=f"random-{self.key.code.name.lower()}-{self.seed}",
            key=self.key,
            n_batches=self.n_batches,
            batch_size=self.batch_size,
            memories=self.memories,
            input=source,
            output=target,
            params=make_params or (lambda tensors: NoParams()),
            **fields,
        )


def encode(float_type: FloatType, values: Values) -> npt.NDArray[Any]:
    """Return values as a memory of this type stores them."""
    if float_type is FloatType.F32:
        return np.ascontiguousarray(values)
    return quantize_q40(values) if float_type is FloatType.Q40 else quantize_q80(values)
