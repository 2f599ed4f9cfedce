"""MATMUL, with experts and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dllama_ops import params
from dllama_ops.checker import Checker, spec_of
from dllama_ops.op_spec import IndexData, OpSpec
from dllama_ops.reference import matmul
from dllama_ops.tolerance import SUMS
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_matmul(check: Checker) -> None:
    config: params.MatmulParams = check.params
    weight, active = check.weight, config.n_active_experts
    check.rows("input", check.source, z=max(active, 1), x=weight.y)
    check.rows("output", check.target, z=max(active, 1), x=weight.x)
    n_weights = max(config.n_experts, 1)
    check.expect(weight.z == n_weights, "weight", f"z={n_weights} (n_experts)", spec_of(weight))
    text = f"0..{config.n_experts} (n_experts)"
    check.expect(0 <= active <= config.n_experts, "n_active_experts", text, active)
    indexes = config.active_expert_indexes
    if indexes is None:
        check.expect(active <= 0, "active_expert_indexes", "a buffer", "none")
    elif active > 0 and check.f32("active_expert_indexes", indexes, x=active):
        check.apart("active_expert_indexes", indexes)
    check.apart("input", check.source)


def _draw_matmul(draft: Draft) -> OpCase:
    n, d = draft.width(draft.input_type, draft.weight_type), draft.between(1, 200)
    experts = draft.between(1, 6) if draft.chance() else 0
    active = draft.between(1, experts) if experts else 0
    z = max(active, 1)
    source, target = draft.input(n, z=z), draft.output(d, z=z)
    weight = draft.weight(max(experts, 1), n, d, draft.normal(max(experts, 1), d, n, scale=0.1))
    if active:
        chosen = np.stack([draft.rng.permutation(experts)[:active] for _ in range(draft.batch_size)])
        draft.params_rows("indexes", chosen[None].astype(np.float32))
    return draft.case(
        source,
        target,
        lambda m: params.MatmulParams(experts, active, m["indexes"] if active else None),
        **weight,
    )


def _n_experts(case: OpCase) -> int:
    return case.weight.z if case.weight else 0


SPECS = (
    OpSpec(
        OpCode.MATMUL,
        reference={
            _F32: matmul.Matmul,
            OpQuantType.F32_Q40_F32: matmul.Matmul,
            OpQuantType.Q80_Q40_F32: matmul.Matmul,
            OpQuantType.Q80_F32_F32: matmul.Matmul,
        },
        params=params.MatmulParams,
        weight_rows="y",
        check=_check_matmul,
        tolerance=SUMS,
        draw=_draw_matmul,
        indexes=IndexData("indexes", _n_experts),
    ),
)
