"""Which bytes of a weight have come: missing, twice, scattered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_ops.kernel import BaseKernel, BoundOp, KernelKey, OpContext, WeightData
from dllama_ops.params import NoParams
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_worker.errors import WeightMismatch
from dllama_worker.node import weight_loading
from dllama_worker.node.weight_loading import WeightLoading

N = 64


class Sponge(BaseKernel):
    def load_weight(self, offset: int, data: WeightData) -> None:
        pass

    def forward(self, batch_size: int) -> None:
        pass


def loading(n_values: int = N // 4) -> tuple[WeightLoading, BoundOp]:
    tensor = Tensor.over(FloatType.F32, np.zeros(1, np.float32), z=1, y=1, x=1)
    op = BoundOp(
        context := OpContext(
            KernelKey(OpCode.MATMUL, OpQuantType.F32_F32_F32), "w", 0, 1, 1, tensor, tensor,
            WeightSpec(FloatType.F32, z=1, y=1, x=n_values), NoParams(),
        ),
        Sponge(context),
    )  # fmt: skip
    return WeightLoading({("w", 0): op}), op


@given(st.permutations(range(8)), st.lists(st.integers(1, 16), min_size=8, max_size=8))
def test_pieces_in_any_order_are_complete_once_all_have_come(order: list[int], sizes: list[int]) -> None:
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    known, op = loading((total + 3) // 4)
    pieces = [(int(end) - size, size) for size, end in zip(sizes, ends, strict=True)]
    pieces.append((total, -total % 4))
    for at in [*order, 8]:
        start, size = pieces[at]
        if size:
            with pytest.raises(WeightMismatch, match="bytes are missing"):
                known.finish(((op,),))
        known.arrived("w", 0, start, size)
    known.finish(((op,),))
    assert known.n_bytes == known.total


@given(st.integers(0, N - 1), st.integers(1, N), st.integers(0, N - 1), st.integers(1, N))
def test_a_byte_that_comes_twice_is_refused(start: int, size: int, other: int, other_size: int) -> None:
    known, _ = loading()
    known.arrived("w", 0, start, size)
    if start < other + other_size and other < start + size:
        with pytest.raises(WeightMismatch, match="second time"):
            known.arrived("w", 0, other, other_size)
    else:
        known.arrived("w", 0, other, other_size)
        assert known.n_bytes == size + other_size


def test_what_is_remembered_of_scattered_bytes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_loading, "_MAX_GAPS", 100)
    known, _ = loading(1000)
    for offset in range(0, 202, 2):
        known.arrived("w", 0, offset, 1)
    with pytest.raises(WeightMismatch, match="scattered"):
        known.arrived("w", 0, 300, 1)
