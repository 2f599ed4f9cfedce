"""A case: an op of a node, or a whole segment, as plain data that can be bound to fresh memory again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import KernelKey, OpContext
from dllama_ops.params import OpParams
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Batch", "BoundCase", "BoundSegment", "Memory", "OpCase", "SegmentCase", "View"]

#: Bytes around every memory that no kernel may change; also keeps memories apart and aligned to 64 bytes.
_GUARD = 128
_GUARD_BYTE = 0xA5


@dataclass(frozen=True, slots=True)
class Memory:
    """A pipe or buffer: type, shape [z][y][x] and contents."""

    float_type: FloatType
    z: int
    y: int
    x: int
    contents: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class View:
    """What an op sees of a memory: all of it, some columns (start, stop), or all of it as one raw row."""

    memory: str
    columns: tuple[int, int] | None = None
    raw: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpCase:
    """An op, its memory before, and what is expected of it after.

    ``params`` makes the op's record from the memories as tensors; ``expected`` has the contents of memories
    after the op, those that stay as they are left out; ``weight_bytes`` are as on the wire.
    """

    name: str
    key: KernelKey
    n_batches: int
    batch_size: int
    memories: Mapping[str, Memory]
    input: View
    output: View
    params: Callable[[Mapping[str, Tensor]], OpParams | DataclassInstance]
    weight: WeightSpec | None = None
    weight_bytes: bytes = b""
    expected: Mapping[str, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.key} {self.name}>"

    def bind(self, n_threads: int = 1) -> BoundCase:
        """Lay the case out in fresh memory, filled with the contents before."""
        arenas = {name: _Arena(memory) for name, memory in self.memories.items()}
        return BoundCase(arenas, self.context(arenas, n_threads))

    def context(self, arenas: Mapping[str, _Arena], n_threads: int) -> OpContext:
        """Return the op's context over memories that are laid out already."""
        tensors = {name: arena.tensor for name, arena in arenas.items()}
        return OpContext(
            key=self.key,
            name=self.name,
            index=0,
            n_batches=self.n_batches,
            n_threads=n_threads,
            input=_look(tensors, self.input),
            output=_look(tensors, self.output),
            weight=self.weight,
            params=self.params(tensors),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """The memories of a case."""

    arenas: Mapping[str, _Arena]

    def contents(self) -> dict[str, bytes]:
        """Copy what is in every memory now."""
        return {name: arena.bytes.tobytes() for name, arena in self.arenas.items()}

    def fill(self, contents: Mapping[str, bytes]) -> None:
        """Overwrite memories."""
        for name, data in contents.items():
            self.arenas[name].bytes[:] = np.frombuffer(data, np.uint8)

    def overrun(self) -> list[str]:
        """Return the memories whose surroundings were written to."""
        return [name for name, arena in self.arenas.items() if arena.overrun()]


@dataclass(frozen=True, slots=True, eq=False)
class BoundCase(_Bound):
    """A case in memory: the op's context, and what it can reach."""

    context: OpContext


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward: how many rows, and what is written into which memories before."""

    size: int
    contents: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SegmentCase:
    """A segment of one node: ops over memories that they share, and the batches that go through it.

    ``bad`` is a batch with an index out of range, where an op takes one; what ``scratch`` holds after a
    forward is open; ``relative`` is how far apart two ways to run the same kernels may end, as a share of
    the row's largest magnitude.
    """

    name: str
    memories: Mapping[str, Memory]
    ops: tuple[OpCase, ...]
    batches: tuple[Batch, ...]
    bad: Batch | None
    scratch: frozenset[str]
    relative: float

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def bind(self, n_threads: int = 1) -> BoundSegment:
        """Lay the segment out in fresh memory, filled with the contents before."""
        arenas = {name: _Arena(memory) for name, memory in self.memories.items()}
        return BoundSegment(arenas, tuple(op.context(arenas, n_threads) for op in self.ops))


@dataclass(frozen=True, slots=True, eq=False)
class BoundSegment(_Bound):
    """A segment in memory: the contexts of its ops, and what they can reach."""

    contexts: tuple[OpContext, ...]


class _Arena:
    """One memory between two guards."""

    def __init__(self, memory: Memory) -> None:
        n_bytes = len(memory.contents)
        whole = np.full(n_bytes + 3 * _GUARD, _GUARD_BYTE, np.uint8)
        start = _GUARD + -(whole.ctypes.data + _GUARD) % 64
        self._before, self._after = whole[:start], whole[start + n_bytes :]
        self.bytes: npt.NDArray[np.uint8] = whole[start : start + n_bytes]
        self.bytes[:] = np.frombuffer(memory.contents, np.uint8)
        self.tensor = Tensor.over(memory.float_type, self.bytes, z=memory.z, y=memory.y, x=memory.x)

    def overrun(self) -> bool:
        """Tell whether a guard has changed."""
        return bool((self._before != _GUARD_BYTE).any() or (self._after != _GUARD_BYTE).any())


def _look(tensors: Mapping[str, Tensor], view: View) -> Tensor:
    tensor = tensors[view.memory]
    if view.raw:
        return tensor.raw()
    return tensor.columns(*view.columns) if view.columns else tensor


def units(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View stored units (z, y, n) as what can be compared: float32, or the bytes of blocks."""
    return data if data.dtype.fields is None else data.view(np.uint8)
