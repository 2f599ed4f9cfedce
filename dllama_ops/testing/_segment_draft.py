"""A random segment in the making: memory that its ops share, weights, and the batches that go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from types import MappingProxyType

import numpy as np

from dllama_ops import params
from dllama_ops.cases.case import Batch, Memory, OpCase, SegmentCase, View
from dllama_ops.cases.draft import Values, encode
from dllama_ops.kernel import KernelKey
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType, OpCode, op_quant_type

__all__ = ["SEQ_LEN", "SegmentDraft"]

#: Positions that caches have room for.
SEQ_LEN = 24

#: Quantised activations may fall on the other side of a rounding, and then differ by a step of 1/127.
_TOLERANCE = MappingProxyType({FloatType.F32: 1e-4, FloatType.Q80: 0.02})


class SegmentDraft:
    """A segment in the making. ``activation`` is the type of what goes into matmuls and over the wire."""

    def __init__(self, name: str, rng: np.random.Generator, quantised: bool) -> None:
        self.rng = rng
        self.activation, self.weights = (
            (FloatType.Q80, FloatType.Q40) if quantised else (FloatType.F32, FloatType.F32)
        )
        self._name = name
        self.n_batches = int(self.rng.integers(3, 9))
        self.dim = 32 * int(self.rng.integers(1, 4))
        self.n_nodes = int(self.rng.integers(1, 3))
        self.node = int(self.rng.integers(0, self.n_nodes))
        self.memories: dict[str, Memory] = {}
        self._ops: list[OpCase] = []
        self._scratch: set[str] = set()
        self._inputs: list[str] = []

    def memory(
        self, name: str, x: int, *, z: int = 1, float_type: FloatType = FloatType.F32, scratch: bool = False
    ) -> None:
        """Add a memory with a row for each place of the batch, with any numbers in it."""
        values = self._normal(z, self.n_batches, x)
        self.memories[name] = Memory(float_type, z, self.n_batches, x, encode(float_type, values).tobytes())
        if scratch:
            self._scratch.add(name)

    def input(self, name: str, x: int, float_type: FloatType = FloatType.F32) -> None:
        """Add a memory that is written anew before each forward."""
        self.memory(name, x, float_type=float_type)
        self._inputs.append(name)

    def rows(self, name: str, y: int, x: int) -> None:
        """Add a memory of rows by position, which no op may read before it is written."""
        contents = np.full((1, y, x), np.nan, np.float32).tobytes()
        self.memories[name] = Memory(FloatType.F32, 1, y, x, contents)

    def op(
        self,
        code: OpCode,
        source: str | View,
        target: str | View,
        make_params: Callable[[Mapping[str, Tensor]], params.OpParams] = lambda memories: params.NoParams(),
        *,
        weight: WeightSpec | None = None,
    ) -> None:
        """Append an op; its weight gets random values."""
        source, target = _view(source), _view(target)
        weight_type = weight.float_type if weight else FloatType.UNK
        types = (
            self.memories[source.memory].float_type,
            weight_type,
            self.memories[target.memory].float_type,
        )
        quant = op_quant_type(*types)
        if quant is None:
            raise ValueError(f"no op has the types {types}")
        data = b""
        if weight is not None:
            values = self._normal(weight.z * weight.y * weight.x) / np.float32(sqrt(weight.y))
            data = encode(weight.float_type, values).tobytes()
        self._ops.append(
            OpCase(
                name=f"{self._name}-op-{len(self._ops)}",
                key=KernelKey(code, quant),
                n_batches=self.n_batches,
                batch_size=self.n_batches,
                memories=self.memories,
                input=source,
                output=target,
                params=make_params,
                weight=weight,
                weight_bytes=data,
            )
        )

    def begin(self) -> None:
        """Append what every half layer begins with: the partial sums of all nodes, and the norm."""
        self.input("sums", self.n_nodes * self.dim, self.activation)
        self.input("x", self.dim)
        self.memory("inv_rms", 1)
        self.memory("y", self.dim)
        self.memory("yq", self.dim, float_type=self.activation)
        self.op(OpCode.MERGE_ADD, "sums", "x")
        self.op(OpCode.INV_RMS, "x", "inv_rms", lambda m: params.InvRmsParams(1e-5, 1))
        norm = WeightSpec(FloatType.F32, 1, 1, self.dim)
        self.op(OpCode.RMS_NORM, "x", "y", lambda m: params.RmsNormParams(1, m["inv_rms"]), weight=norm)

    def matmul(self, source: str, target: str, n: int, d: int, experts: int = 0, active: int = 0) -> None:
        """Append a product with weights of the segment's type."""

        def make(memories: Mapping[str, Tensor]) -> params.MatmulParams:
            return params.MatmulParams(experts, active, memories["indexes"] if active else None)

        spec = WeightSpec(self.weights, max(experts, 1), n, d)
        self.op(OpCode.MATMUL, source, target, make, weight=spec)

    def end(self) -> None:
        """Append what every half layer ends with: this node's own partial sums."""
        self.op(OpCode.CAST, "y", View("sums", (self.dim * self.node, self.dim * (self.node + 1))))

    def case(self) -> SegmentCase:
        """Finish the case: a prompt, single tokens, a full batch, and back to an earlier position."""
        batches = [
            self._batch(size, first)
            for size, first in (
                (self.n_batches - 1, 0),
                (1, self.n_batches - 1),
                (1, self.n_batches),
                (self.n_batches, self.n_batches + 1),
                (2, 1),
            )
        ]
        has_positions = "positions" in self.memories
        return SegmentCase(
            name=self._name,
            memories=self.memories,
            ops=tuple(self._ops),
            batches=tuple(batches),
            bad=self._batch(2, SEQ_LEN - 1) if has_positions else None,
            scratch=frozenset(self._scratch),
            relative=_TOLERANCE[self.activation],
        )

    def _batch(self, size: int, first: int) -> Batch:
        contents = {}
        for name in self._inputs:
            memory = self.memories[name]
            values = self._normal(1, self.n_batches, memory.x)
            if name == "positions":
                values[0, :, 0] = np.nan
                values[0, :size, 0] = np.arange(first, first + size)
            contents[name] = encode(memory.float_type, values).tobytes()
        return Batch(size, contents)

    def _normal(self, *shape: int) -> Values:
        return self.rng.standard_normal(shape).astype(np.float32)


def _view(place: str | View) -> View:
    return place if isinstance(place, View) else View(place)
