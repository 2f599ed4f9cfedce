"""GELU, SILU, SOFTMAX: functions of a row, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllama_ops.checker import Checker
from dllama_ops.kernel import KernelFactory
from dllama_ops.op_spec import OpSpec
from dllama_ops.reference import activation
from dllama_ops.tolerance import EXPONENTIALS
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]


def _check_in_place(check: Checker) -> None:
    check.same_rows()
    check.in_place()


def _draw_in_place(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    source = draft.input(x, z=z, values=draft.normal(z, draft.batch_size, x, scale=4.0), in_place=True)
    return draft.case(source, source)


def _in_place(code: OpCode, kernel: KernelFactory) -> OpSpec:
    return OpSpec(
        code,
        reference={OpQuantType.F32_F32_F32: kernel},
        check=_check_in_place,
        tolerance=EXPONENTIALS,
        draw=_draw_in_place,
    )


SPECS = (
    _in_place(OpCode.GELU, activation.Gelu),
    _in_place(OpCode.SILU, activation.Silu),
    _in_place(OpCode.SOFTMAX, activation.Softmax),
)
