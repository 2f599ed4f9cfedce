"""EMBEDDING, CAST, REPEAT_Z, SHIFT: rows looked up, converted, copied, stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dllama_ops import params
from dllama_ops.checker import Checker, shape_of, spec_of
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import IndexData, OpSpec, Rows
from dllama_ops.reference import movement
from dllama_ops.tolerance import EXACT
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_embedding(check: Checker) -> None:
    check.rows("input", check.source, z=1, x=1)
    check.rows("output", check.target, z=1, x=check.weight.x)
    check.expect(check.weight.z == 1, "weight", "z = 1", spec_of(check.weight))
    check.apart("input", check.source)


def _draw_embedding(draft: Draft) -> OpCase:
    x, vocab = draft.width(draft.weight_type, draft.output_type), draft.between(1, 90)
    tokens = draft.whole(1, draft.batch_size, 1, below=vocab)
    source = draft.input(1, values=tokens)
    weight = draft.weight(1, vocab, x, draft.normal(vocab, x))
    return draft.case(source, draft.output(x), **weight)


def _check_cast(check: Checker) -> None:
    check.same_rows()
    check.apart("input", check.source, or_same=check.source.float_type is check.target.float_type)


def _draw_cast(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width(draft.input_type, draft.output_type)
    return draft.case(draft.input(x, z=z), draft.output(x, z=z))


def _check_repeat_z(check: Checker) -> None:
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, x=check.source.x)
    check.apart("input", check.source)


def _draw_repeat_z(draft: Draft) -> OpCase:
    z, x = draft.between(1, 5), draft.width(draft.output_type)
    return draft.case(draft.input(x), draft.output(x, z=z))


def _check_shift(check: Checker) -> None:
    config: params.ShiftParams = check.params
    source, target = check.source, check.target
    check.rows("input", source, z=1)
    raw = (target.z, target.y) == (1, 1) and target.x % source.x == 0
    check.expect(raw, "output", f"a raw buffer of whole rows of {source.x} values", shape_of(target))
    check.apart("input", source)
    if check.f32("indexes", config.indexes, x=1):
        check.apart("indexes", config.indexes)


def _draw_shift(draft: Draft) -> OpCase:
    x, seq_len = draft.width(), draft.between(1, 30)
    source = draft.input(x)
    draft.params_rows("indexes", draft.positions(seq_len))
    draft.buffer("cache", draft.normal(1, seq_len, x))
    return draft.case(source, draft.raw("cache"), lambda m: params.ShiftParams(m["indexes"]))


def _rows_of_table(case: OpCase) -> int:
    return case.weight.y if case.weight else 0


def _rows_of_cache(case: OpCase) -> int:
    return case.memories["cache"].y


def _whole(context: OpContext, batch_size: int) -> Rows:
    """The rows that a SHIFT writes are anywhere in its cache."""
    return context.output.data


SPECS = (
    OpSpec(
        OpCode.EMBEDDING,
        reference={_F32: movement.Embedding, OpQuantType.F32_F32_Q80: movement.Embedding},
        weight_rows="x",
        check=_check_embedding,
        tolerance=EXACT,
        draw=_draw_embedding,
        indexes=IndexData("in", _rows_of_table),
    ),
    OpSpec(
        OpCode.CAST,
        reference={
            _F32: movement.Copy,
            OpQuantType.F32_F32_Q80: movement.Cast,
            OpQuantType.Q80_Q80_Q80: movement.Copy,
            OpQuantType.Q80_Q80_F32: movement.Cast,
        },
        check=_check_cast,
        tolerance=EXACT,
        draw=_draw_cast,
    ),
    OpSpec(
        OpCode.REPEAT_Z,
        reference={_F32: movement.RepeatZ, OpQuantType.F32_F32_Q80: movement.RepeatZ},
        check=_check_repeat_z,
        tolerance=EXACT,
        draw=_draw_repeat_z,
    ),
    OpSpec(
        OpCode.SHIFT,
        reference={_F32: movement.Shift},
        params=params.ShiftParams,
        check=_check_shift,
        tolerance=EXACT,
        draw=_draw_shift,
        indexes=IndexData("indexes", _rows_of_cache),
        output=_whole,
    ),
)
