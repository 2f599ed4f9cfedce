"""The segments of the kit: they keep the contract, and what errs in any one way is caught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import pytest

from dllama_ops import BoundOp, CompiledSegment, KernelDataError, KernelKey, OpContext, check_context
from dllama_ops.params import MultiHeadAttParams
from dllama_ops.reference.attention import MultiHeadAtt
from dllama_ops.segments import SequentialSegment
from dllama_ops.testing import (
    SEGMENT_KINDS,
    SegmentKind,
    check_in_segment,
    check_segment,
    random_segment,
)
from dllama_proto.enums import OpCode, OpQuantType

ATTENTION = KernelKey(OpCode.MULTIHEAD_ATT, OpQuantType.F32_F32_F32)
SILU = KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32)

Forward = Callable[[SequentialSegment, Sequence[BoundOp], int], None]


def compiler(forward: Forward) -> Callable[[Sequence[BoundOp], int], CompiledSegment]:
    """A compiler whose segments do what ``forward`` says with the kernels one by one."""

    def compile_ops(ops: Sequence[BoundOp], n_threads: int) -> CompiledSegment:
        class Segment:
            plain = SequentialSegment(ops)

            def forward(self, batch_size: int) -> None:
                forward(self.plain, ops, batch_size)

        return Segment()

    return compile_ops


def right(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    plain.forward(batch_size)


def leaves_out_the_last(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    for op in ops[:-1]:
        op.kernel.forward(batch_size)


def one_row_only(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    plain.forward(1)


def all_rows(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    plain.forward(batch_size)
    last = ops[-1].context
    last.output.data.view(np.uint8)[:, -1] = 0


def takes_bad_positions(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    with suppress(KernelDataError):
        plain.forward(batch_size)


RUNS = count()


def other_bits_each_time(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    plain.forward(batch_size)
    output = ops[1].context.output.data
    output[:, :batch_size] *= np.float32(1 + 1e-6 * next(RUNS))


def fails(plain: SequentialSegment, ops: Sequence[BoundOp], batch_size: int) -> None:
    raise RuntimeError("out of registers")


@pytest.mark.parametrize("quantised", [True, False])
@pytest.mark.parametrize("kind", SEGMENT_KINDS)
def test_segments_keep_the_contract_and_a_right_compiler_passes(kind: SegmentKind, quantised: bool) -> None:
    for seed in range(4):
        case = random_segment(kind, seed, quantised=quantised)
        assert [check_context(context) for context in case.bind().contexts] == [[]] * len(case.ops)
        assert check_segment(compiler(right), case, kernels={}) == []


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (leaves_out_the_last, "batch 0 (size "),
        (one_row_only, "are wrong, the worst at ["),
        (all_rows, "sums: "),
        (takes_bad_positions, "expected KernelDataError for a position out of range, nothing was raised"),
        (other_bits_each_time, "inv_rms: a second run on the same input gives other bits"),
        (fails, "raised RuntimeError: out of registers"),
    ],
)
def test_catches_a_wrong_compiler(forward: Forward, message: str) -> None:
    failures = check_segment(compiler(forward), random_segment("attention", 2), kernels={})
    assert failures
    assert any(message in failure for failure in failures), failures


def test_a_segment_left_alone_is_no_failure() -> None:
    assert check_segment(lambda ops, n_threads: None, random_segment("experts", 0), kernels={}) is None


def test_what_cannot_run_is_a_failure() -> None:
    nothing: Any = "a segment"
    failures = check_segment(lambda ops, n_threads: nothing, random_segment("experts", 0), kernels={})
    assert failures == ["raised AttributeError: 'str' object has no attribute 'forward'"]


def test_a_kernel_that_copies_the_cache_once_is_caught_by_the_second_batch() -> None:
    """One forward by itself would be right."""

    class Stale(MultiHeadAtt):
        def __init__(self, context: OpContext) -> None:
            super().__init__(context)
            assert isinstance(context.params, MultiHeadAttParams)
            self._cache = context.params.key_cache.data
            self._copy: Any = None

        def forward(self, batch_size: int) -> None:
            if self._copy is None:
                self._copy = np.nan_to_num(self._cache)
            now = self._cache.copy()
            self._cache[...] = self._copy
            super().forward(batch_size)
            self._cache[...] = now

    case = random_segment("attention", 1)
    assert check_in_segment(ATTENTION, MultiHeadAtt, case) == []
    failures = check_in_segment(ATTENTION, Stale, case)
    assert failures
    assert not any(failure.startswith("batch 0") for failure in failures)
    assert any(failure.startswith("batch 1 (size 1): ") for failure in failures)


def test_a_kernel_of_no_op_of_the_segment_is_not_checked() -> None:
    assert check_in_segment(SILU, MultiHeadAtt, random_segment("attention", 0)) is None
