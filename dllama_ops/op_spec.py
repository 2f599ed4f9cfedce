"""What an op is to kernels, said once: the contract, the reference, the kit and the table of kernels ask here.

The specs of the protocol's own ops are in :mod:`dllama_ops.reference.specs`, a module for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy.typing as npt

from dllama_ops.checker import Checker
from dllama_ops.kernel import KernelFactory, OpContext
from dllama_ops.params import NoParams
from dllama_ops.tolerance import Tolerance
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["IndexData", "OpRegistry", "OpSpec", "Rows", "Written", "batch_rows"]

#: Values [z][y][x] of a memory: float32, or blocks.
Rows = npt.NDArray[Any]


class Written(NamedTuple):
    """Memory among the params that an op writes, and how exact it has to be; None: anything may be left there."""

    what: str
    values: Rows
    tolerance: Tolerance | None


class IndexData(NamedTuple):
    """Where a drawn case has indexes that come as data: the memory, and the first number out of range."""

    memory: str
    bound: Callable[[OpCase], int]


def batch_rows(context: OpContext, batch_size: int) -> Rows:
    """Return the output's rows of the batch: what most ops write."""
    return context.output.data[:, :batch_size]


def _nothing(context: OpContext, batch_size: int) -> Iterable[Written]:
    return ()


@dataclass(frozen=True, slots=True, eq=False)
class OpSpec:
    """An op code, with all that is to be known of it beside its arithmetic.

    ``reference`` has the NumPy kernel of each quant key: the definition, and the kernel of last resort.
    ``check`` notes what is wrong with a context of right types. ``tolerance`` is what float32 results are
    allowed (Q80 has none: its rounding is exact). ``draw`` makes a random case up. ``params`` is the record
    that a context must have; ``weight_rows`` the axis along which the weight's rows lie, None without one.
    ``output`` returns what of the output a batch writes, ``also_writes`` what else.
    """

    code: OpCode
    reference: Mapping[OpQuantType, KernelFactory]
    check: Callable[[Checker], None]
    tolerance: Tolerance
    draw: Callable[[Draft], OpCase]
    params: type[DataclassInstance] = NoParams
    weight_rows: Literal["x", "y"] | None = None
    indexes: IndexData | None = None
    output: Callable[[OpContext, int], Rows] = batch_rows
    also_writes: Callable[[OpContext, int], Iterable[Written]] = _nothing


class OpRegistry:
    """Op specs by code. Readers look a code up when they need it: what is registered counts from then on."""

    def __init__(self, specs: Iterable[OpSpec] = ()) -> None:
        self._specs: dict[OpCode, OpSpec] = {}
        for spec in specs:
            self.register(spec)

    def register(self, spec: OpSpec) -> None:
        """Add an op. Raises ValueError where its code is taken."""
        code, other = spec.code, self._specs.get(spec.code)
        if other is not None:
            raise ValueError(
                f"op code {code.value} is registered as {other.code.name} with {other.params.__name__}: "
                f"{code.name} with {spec.params.__name__} needs another code"
            )
        self._specs[code] = spec

    def remove(self, code: OpCode) -> None:
        """Take an op out again. Raises KeyError where it is not there."""
        del self._specs[code]

    def get(self, code: OpCode) -> OpSpec:
        """Return the spec of a code. Raises KeyError where there is none."""
        return self._specs[code]

    def __contains__(self, code: object) -> bool:
        return code in self._specs

    def __iter__(self) -> Iterator[OpSpec]:
        return iter(tuple(self._specs.values()))

    def __len__(self) -> int:
        return len(self._specs)
