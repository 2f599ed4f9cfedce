"""MOE_GATE: which experts a row goes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dllama_ops import params
from dllama_ops.checker import Checker
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import OpSpec, Written
from dllama_ops.reference import moe
from dllama_ops.reference._kernel import params_of
from dllama_ops.tolerance import EXACT, SUMS
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_moe_gate(check: Checker) -> None:
    config: params.MoeGateParams = check.params
    source = check.source
    check.rows("input", source, z=1)
    check.apart("input", source)
    if not check.expect(0 < config.k <= source.x, "k", f"1..{source.x}, the input's x", config.k):
        return
    check.rows("output", check.target, z=config.k, x=1)
    if check.f32("indexes", config.indexes, x=config.k, writable=True):
        check.apart("indexes", config.indexes)
        check.disjoint("indexes", config.indexes, "the input", source)


def _draw_moe_gate(draft: Draft) -> OpCase:
    experts = draft.between(1, 130)
    k, norm = draft.between(1, min(experts, 9)), draft.chance()
    # Distinct values: which of two equal ones comes first is open.
    ranks = np.stack([draft.rng.permutation(experts) for _ in range(draft.batch_size)])
    source = draft.input(experts, values=((ranks + 1) / experts)[None].astype(np.float32))
    target = draft.output(1, z=k)
    draft.rows("indexes", x=k, whole=True, written=True)
    return draft.case(source, target, lambda m: params.MoeGateParams(k, norm, m["indexes"]))


def _indexes(context: OpContext, batch_size: int) -> Iterator[Written]:
    """Yield the numbers of the chosen experts."""
    indexes = params_of(context, params.MoeGateParams).indexes
    yield Written("indexes", indexes.data[:, :batch_size], EXACT)


SPECS = (
    OpSpec(
        OpCode.MOE_GATE,
        reference={_F32: moe.MoeGate},
        params=params.MoeGateParams,
        check=_check_moe_gate,
        tolerance=SUMS,
        draw=_draw_moe_gate,
        also_writes=_indexes,
    ),
)
