"""An op that the C++ program does not have, as somebody would add one: a record and a spec for each package.

PICK: output [1][n_batches][1] = factor times the input's value at the row's index, which lies in a buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dllama_ops.checker import Checker
from dllama_ops.op_spec import IndexData, OpSpec
from dllama_ops.reference._kernel import ReferenceKernel, params_of
from dllama_ops.reference.specs import OPS
from dllama_ops.tensor import Tensor
from dllama_ops.testing import Draft, OpCase
from dllama_ops.tolerance import EXACT
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_proto.schemas import op_spec as wire
from dllama_proto.schemas.op_configs import OPS as WIRE_OPS
from dllama_proto.schemas.wire import F32, U32, BufferIndex, Record
from dllama_proto.verify import Fault

__all__ = [
    "KEY_TYPES",
    "PICK",
    "Pick",
    "PickConfig",
    "PickParams",
    "kernel_spec",
    "registered",
    "wire_spec",
]

PICK = OpCode.define(64, "PICK")
KEY_TYPES = OpQuantType.F32_F32_F32


# On the wire ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PickConfig:
    """Without a factor, ``indexes_buffer`` is not read; ``spare`` is never set."""

    factor: float
    indexes_buffer: int
    spare: int


_SCHEMA = Record(
    PickConfig,
    "factor" / F32,
    "indexes_buffer" / BufferIndex,
    "spare" / U32,
)


def _unread(config: PickConfig) -> Collection[str]:
    return () if config.factor else ("indexes_buffer",)


def _undefined(config: PickConfig) -> Collection[str]:
    return ("spare",)


def _verify(path: str, config: PickConfig, net: NetConfig, node: NodeConfig) -> Iterator[Fault]:
    if not math.isfinite(config.factor):
        yield Fault(f"{path}.factor", "a number", str(config.factor))


def wire_spec() -> wire.OpConfigSpec[PickConfig]:
    return wire.OpConfigSpec(PICK, _SCHEMA, unread=_unread, undefined=_undefined, verify=_verify)


# For kernels ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PickParams:
    factor: float
    indexes: Tensor | None


class Pick(ReferenceKernel):
    def compute(self, batch_size: int) -> None:
        params = params_of(self.context, PickParams)
        source, target = self.context.input.data[0, :batch_size], self.context.output.data[0, :batch_size]
        if params.indexes is None:
            target[:] = 0
            return
        chosen = self.indexes("indexes", params.indexes, batch_size, source.shape[1])
        target[:] = np.take_along_axis(source, chosen, axis=1) * np.float32(params.factor)


def _check(check: Checker) -> None:
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, z=1, x=1)
    check.apart("input", check.source)
    if check.params.indexes is not None and check.f32("indexes", check.params.indexes, x=1):
        check.apart("indexes", check.params.indexes)


def _draw(draft: Draft) -> OpCase:
    x = draft.width()
    source = draft.input(x)
    draft.params_rows("indexes", draft.whole(1, draft.batch_size, 1, below=x))
    return draft.case(source, draft.output(1), lambda memories: PickParams(2.0, memories["indexes"]))


def _width(case: OpCase) -> int:
    return case.bind().context.input.x


def kernel_spec() -> OpSpec:
    return OpSpec(
        PICK,
        reference={KEY_TYPES: Pick},
        params=PickParams,
        check=_check,
        tolerance=EXACT,
        draw=_draw,
        indexes=IndexData("indexes", _width),
    )


@contextmanager
def registered() -> Iterator[None]:
    """Have the op while this lasts."""
    undo: list[Callable[[OpCode], None]] = []
    try:
        WIRE_OPS.register(wire_spec())
        undo.append(WIRE_OPS.remove)
        OPS.register(kernel_spec())
        undo.append(OPS.remove)
        yield
    finally:
        for remove in undo:
            remove(PICK)
