"""INV_RMS, RMS_NORM: the two halves of a norm."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from dllama_ops import params
from dllama_ops.checker import Checker, shape_of, spec_of
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import OpSpec, Rows
from dllama_ops.reference import norm
from dllama_ops.reference._kernel import params_of
from dllama_ops.tolerance import SUMS
from dllama_proto.enums import FloatType, OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_inv_rms(check: Checker) -> None:
    config: params.InvRmsParams = check.params
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, z=1)
    check.columns(config.n_columns)
    wide = check.target.x >= config.n_columns
    check.expect(wide, "output", f"x >= n_columns = {config.n_columns}", shape_of(check.target))
    check.expect(isfinite(config.epsilon) and config.epsilon >= 0, "epsilon", "0 or more", config.epsilon)
    check.apart("input", check.source)


def _draw_inv_rms(draft: Draft) -> OpCase:
    groups = draft.between(1, 5)
    source = draft.input(groups * draft.width())
    target = draft.output(groups + draft.between(0, 2))
    return draft.case(source, target, lambda _: params.InvRmsParams(epsilon=1e-5, n_columns=groups))


def _check_rms_norm(check: Checker) -> None:
    config: params.RmsNormParams = check.params
    weight = check.weight
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, z=1, x=check.source.x)
    if check.columns(config.n_columns):
        x = check.source.x // config.n_columns
        check.expect(
            (weight.z, weight.y, weight.x) == (1, 1, x), "weight", f"z=1 y=1 x={x}", spec_of(weight)
        )
    if check.f32("inv_rms", config.inv_rms, x=config.n_columns, or_wider=True):
        check.apart("inv_rms", config.inv_rms)
    check.apart("input", check.source, or_same=True)


def _draw_rms_norm(draft: Draft) -> OpCase:
    groups, x = draft.between(1, 5), draft.width(draft.input_type)
    in_place = draft.input_type is FloatType.F32 and draft.chance()
    source = draft.input(groups * x, in_place=in_place)
    target = source if in_place else draft.output(groups * x)
    factors = np.full((1, draft.batch_size, groups + draft.between(0, 2)), np.nan, np.float32)
    factors[:, :, :groups] = np.abs(draft.normal(1, draft.batch_size, groups)) + 0.1
    draft.params_rows("inv_rms", factors)
    weight = draft.weight(1, 1, x, draft.normal(x))
    return draft.case(source, target, lambda m: params.RmsNormParams(groups, m["inv_rms"]), **weight)


def _groups(context: OpContext, batch_size: int) -> Rows:
    """One result a group; columns beyond are not the op's."""
    return context.output.data[:, :batch_size, : params_of(context, params.InvRmsParams).n_columns]


SPECS = (
    OpSpec(
        OpCode.INV_RMS,
        reference={_F32: norm.InvRms},
        params=params.InvRmsParams,
        check=_check_inv_rms,
        tolerance=SUMS,
        draw=_draw_inv_rms,
        output=_groups,
    ),
    OpSpec(
        OpCode.RMS_NORM,
        reference={_F32: norm.RmsNorm, OpQuantType.Q80_F32_F32: norm.RmsNorm},
        params=params.RmsNormParams,
        weight_rows="x",
        check=_check_rms_norm,
        tolerance=SUMS,
        draw=_draw_rms_norm,
    ),
)
