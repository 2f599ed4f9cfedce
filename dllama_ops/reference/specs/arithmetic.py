"""MUL, SCALE, MERGE_ADD, MERGE_SUM: products and sums of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllama_ops import params
from dllama_ops.checker import Checker, shape_of
from dllama_ops.op_spec import OpSpec
from dllama_ops.reference import arithmetic
from dllama_ops.tolerance import EXACT, SUMS
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.floats import is_whole_blocks

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_merge_add(check: Checker) -> None:
    source, target = check.source, check.target
    check.rows("input", source, z=1)
    check.rows("output", target, z=1)
    slices = source.x % target.x == 0 and is_whole_blocks(source.float_type, target.x)
    text = f"whole slices of the output's {target.x} values, each of whole blocks"
    check.expect(slices, "input", text, shape_of(source))
    check.apart("input", source)


def _draw_merge_add(draft: Draft) -> OpCase:
    x, nodes = draft.width(draft.input_type), draft.between(1, 4)
    source = draft.input(nodes * x)
    return draft.case(source, draft.output(x, values=draft.normal(1, draft.batch_size, x)))


def _check_merge_sum(check: Checker) -> None:
    check.rows("input", check.source)
    check.rows("output", check.target, z=1, x=check.source.x)
    check.apart("input", check.source)


def _draw_merge_sum(draft: Draft) -> OpCase:
    x, z = draft.width(), draft.between(1, 5)
    return draft.case(draft.input(x, z=z), draft.output(x))


def _check_mul(check: Checker) -> None:
    config: params.MulParams = check.params
    check.same_rows()
    check.apart("input", check.source, or_same=True)
    if check.f32("multiplier", config.multiplier, z=check.source.z, x=check.source.x):
        check.apart("multiplier", config.multiplier, or_same=True)


def _draw_mul(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    in_place = draft.chance()
    source = draft.input(x, z=z, in_place=in_place)
    target = source if in_place else draft.output(x, z=z)
    draft.params_rows("multiplier", draft.normal(z, draft.batch_size, x))
    return draft.case(source, target, lambda m: params.MulParams(m["multiplier"]))


def _check_scale(check: Checker) -> None:
    config: params.ScaleParams = check.params
    check.same_rows()
    check.apart("input", check.source, or_same=True)
    if check.f32("scale", config.scale, z=check.source.z, x=1):
        check.apart("scale", config.scale)


def _draw_scale(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    in_place = draft.chance()
    source = draft.input(x, z=z, in_place=in_place)
    target = source if in_place else draft.output(x, z=z)
    draft.params_rows("scale", draft.normal(z, draft.batch_size, 1))
    return draft.case(source, target, lambda m: params.ScaleParams(m["scale"]))


SPECS = (
    OpSpec(
        OpCode.MERGE_ADD,
        reference={_F32: arithmetic.MergeAdd, OpQuantType.Q80_Q80_F32: arithmetic.MergeAdd},
        check=_check_merge_add,
        tolerance=SUMS,
        draw=_draw_merge_add,
    ),
    OpSpec(
        OpCode.MERGE_SUM,
        reference={_F32: arithmetic.MergeSum},
        check=_check_merge_sum,
        tolerance=SUMS,
        draw=_draw_merge_sum,
    ),
    OpSpec(
        OpCode.MUL,
        reference={_F32: arithmetic.Mul},
        params=params.MulParams,
        check=_check_mul,
        tolerance=EXACT,
        draw=_draw_mul,
    ),
    OpSpec(
        OpCode.SCALE,
        reference={_F32: arithmetic.Scale},
        params=params.ScaleParams,
        check=_check_scale,
        tolerance=EXACT,
        draw=_draw_scale,
    ),
)
