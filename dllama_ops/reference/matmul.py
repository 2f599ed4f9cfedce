"""Matrix products: MATMUL, with and without experts.

Q40 weights stay packed in memory. They are decoded a chunk of rows at a time into scratch memory that every
chunk of a forward reuses, so a node needs the model's memory once and a megabyte more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import batch_values
from dllama_ops.params import MatmulParams
from dllama_ops.reference._kernel import F32Array, WeightedKernel, params_of, read_bytes, read_rows
from dllama_ops.tensor import WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import BLOCK_SIZE, Q40_BLOCK

__all__ = ["Matmul", "decode_chunk", "pack_chunk"]

#: Weights decoded at a time. 1 MiB of float32 stays in the cache of a core between decoding and use; half
#: as much spends more on calls, four times as much falls out of the cache (measured at 2048 x 8192).
_CHUNK = 1 << 18

_HALF_BLOCK = BLOCK_SIZE // 2
_SCALE_BYTES = 2


def pack_chunk(blocks: npt.NDArray[np.void]) -> None:
    """Reorder rows of Q40 blocks (rows, n) in place, so that long runs of memory can be decoded at once.

    The same bytes, transposed: all scales (n, rows), then all nibbles (16, n, rows). Nibbles are stored as
    signed numbers (code - 8), which needs one bit turned.
    """
    original = blocks.copy()
    memory = blocks.reshape(-1).view(np.uint8)
    n_scale_bytes = blocks.size * _SCALE_BYTES
    memory[:n_scale_bytes].view("<f2").reshape(blocks.shape[::-1])[...] = original["d"].T
    np.bitwise_xor(
        original["qs"].T, 0x88, out=memory[n_scale_bytes:].reshape(_HALF_BLOCK, *blocks.shape[::-1])
    )


def decode_chunk(out: F32Array, memory: npt.NDArray[np.uint8], codes: npt.NDArray[np.int8]) -> None:
    """Decode what :func:`pack_chunk` wrote: out (2, 16, n · rows), with low nibbles first, then high ones.

    ``codes`` (16, n · rows) is scratch. C++ ``dequantizeQ40toF32``.
    """
    n_scale_bytes = out.shape[2] * _SCALE_BYTES
    # A nibble in the upper half of a byte is 16 times its value; a power of two takes nothing from a scale.
    scales = memory[:n_scale_bytes].view("<f2").astype(np.float32)
    scales *= np.float32(1 / 16)
    nibbles = memory[n_scale_bytes:].view(np.int8).reshape(codes.shape)
    np.left_shift(nibbles, 4, out=codes)
    out[0] = codes
    np.bitwise_and(nibbles, -16, out=codes)
    out[1] = codes
    out *= scales


def _chunk_rows(spec: WeightSpec) -> int:
    """Return how many rows of a Q40 weight are decoded at a time.

    Multiples of 16 rows, and no fewer however long they are: BLAS works in tiles of that width.
    """
    return min(spec.x, max(16, _CHUNK // spec.y // 16 * 16))


class _Weight(Protocol):
    """Weights of a matmul, ready to be multiplied."""

    def finish(self) -> None:
        """Prepare, once every byte is there."""

    def arrange(self, x: F32Array) -> F32Array:
        """Put inputs (…, n) in the order of the columns in which ``chunks`` gives the weights."""

    def chunks(self, experts: Iterable[int]) -> Iterator[tuple[int, int, F32Array]]:
        """Give experts' weights transposed, (n, rows), with the expert and the first row; use at once."""


class _F32Weight:
    """Rows of float32 (z, d, n)."""

    def __init__(self, spec: WeightSpec, memory: npt.NDArray[np.uint8]) -> None:
        self._rows = memory.view(np.float32).reshape(spec.z, spec.x, spec.y)

    def finish(self) -> None:
        """Have nothing to prepare."""

    def arrange(self, x: F32Array) -> F32Array:
        """Leave inputs as they are."""
        return x

    def chunks(self, experts: Iterable[int]) -> Iterator[tuple[int, int, F32Array]]:
        """Give all rows of an expert at once."""
        for expert in experts:
            yield expert, 0, self._rows[expert].T


class _Q40Weight:
    """Rows of Q40 blocks (z, d, n / 32); once finished, in packed chunks of rows."""

    def __init__(self, spec: WeightSpec, memory: npt.NDArray[np.uint8]) -> None:
        self._blocks = memory.view(Q40_BLOCK).reshape(spec.z, spec.x, spec.y // BLOCK_SIZE)
        self._rows = _chunk_rows(spec)

    def finish(self) -> None:
        """Pack every chunk."""
        for expert in self._blocks:
            for start in range(0, len(expert), self._rows):
                pack_chunk(expert[start : start + self._rows])

    def arrange(self, x: F32Array) -> F32Array:
        """Order columns as the packed nibbles: (…, blocks, half, 16) to (…, half, 16, blocks)."""
        split = x.reshape(*x.shape[:-1], -1, 2, _HALF_BLOCK)
        return np.moveaxis(split, -3, -1).reshape(x.shape)

    def chunks(self, experts: Iterable[int]) -> Iterator[tuple[int, int, F32Array]]:
        """Decode one chunk of rows after the other into the same scratch."""
        n_units = self._rows * self._blocks.shape[2]
        scratch = np.empty(n_units * BLOCK_SIZE, np.float32)
        codes = np.empty(n_units * _HALF_BLOCK, np.int8)
        for expert, start in product(experts, range(0, self._blocks.shape[1], self._rows)):
            blocks = self._blocks[expert, start : start + self._rows]
            decoded = scratch[: blocks.size * BLOCK_SIZE].reshape(2, _HALF_BLOCK, blocks.size)
            decode_chunk(
                decoded,
                blocks.reshape(-1).view(np.uint8),
                codes[: blocks.size * _HALF_BLOCK].reshape(_HALF_BLOCK, blocks.size),
            )
            yield expert, start, decoded.reshape(-1, len(blocks))


class Matmul(WeightedKernel):
    """MATMUL: weight (z, d, n), input (slots, b, n) -> output (slots, b, d); slots: active experts, or 1.

    F32_F32_F32, Q80_Q40_F32 (C++ ``matmul_F32_F32_F32``, ``matmul_Q80_Q40_F32``), and what C++ lacks:
    F32_Q40_F32 and Q80_F32_F32.
    """

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._params = params_of(context, MatmulParams)
        of_type = _Q40Weight if self.spec.float_type is FloatType.Q40 else _F32Weight
        self._weight: _Weight = of_type(self.spec, self.weight)

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count inputs read, arranged and gathered, decoded rows, and what experts gave before it is put in place.

        Packing takes less than decoding: a copy of the same rows, as blocks.
        """
        spec, params = context.weight, params_of(context, MatmulParams)
        if spec is None:
            return 0
        n_values, n_bytes, rows = (
            batch_values(context, context.input),
            read_bytes(context, context.input),
            spec.x,
        )
        if spec.float_type is FloatType.Q40:
            rows = _chunk_rows(spec)
            n_bytes += 4 * n_values + 6 * rows * spec.y
        if params.n_active_experts:
            n_slots = context.n_batches * params.n_active_experts
            n_bytes += 4 * n_values + 8 * n_slots * rows + 64 * n_slots
        return n_bytes

    def finish_weight(self) -> None:
        """Accept no more pieces, and pack."""
        super().finish_weight()
        self._weight.finish()

    def compute(self, batch_size: int) -> None:
        """Multiply each row, with the experts that it chose. Raises KernelDataError."""
        x = self._weight.arrange(read_rows(self.context.input, batch_size))
        out = self.context.output.data[:, :batch_size]
        indexes = self._params.active_expert_indexes
        if indexes is None or self._params.n_active_experts == 0:
            for _, start, weight in self._weight.chunks([0]):
                np.matmul(x[0], weight, out=out[0, :, start : start + weight.shape[1]])
            return
        experts = self.indexes("expert indexes", indexes, batch_size, self.spec.z)
        # Each expert's weights are decoded once, for all the rows that chose it.
        chosen = {int(expert): np.nonzero(experts == expert) for expert in np.unique(experts)}
        inputs = {expert: x[slots, rows] for expert, (rows, slots) in chosen.items()}
        for expert, start, weight in self._weight.chunks(chosen):
            rows, slots = chosen[expert]
            out[slots, rows, start : start + weight.shape[1]] = inputs[expert] @ weight
