"""The conformance kit itself: a kernel that errs in any one way is caught, and the message says how."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dllama_ops import BaseKernel, KernelFactory, KernelKey, OpContext, WeightData
from dllama_ops.params import MulParams, ShiftParams
from dllama_ops.reference import matmul, movement
from dllama_ops.testing import bad_data_cases, check_kernel, check_refusal, random_case, tolerance_of
from dllama_proto.enums import OpCode, OpQuantType

MUL = KernelKey(OpCode.MUL, OpQuantType.F32_F32_F32)
SHIFT = KernelKey(OpCode.SHIFT, OpQuantType.F32_F32_F32)
MATMUL = KernelKey(OpCode.MATMUL, OpQuantType.F32_F32_F32)
REPEAT_Z = KernelKey(OpCode.REPEAT_Z, OpQuantType.F32_F32_Q80)


class _Mul(BaseKernel):
    """MUL, right, for the others to spoil."""

    def forward(self, batch_size: int) -> None:
        out, x = self.context.output.data, self.context.input.data
        params = self.context.params
        assert isinstance(params, MulParams)
        out[:, :batch_size] = x[:, :batch_size] * params.multiplier.data[:, :batch_size]


class _Inexact(_Mul):
    def forward(self, batch_size: int) -> None:
        super().forward(batch_size)
        self.context.output.data[-1, batch_size - 1, -1] *= np.float32(1.0000005)


class _AllRows(_Mul):
    def forward(self, batch_size: int) -> None:
        with np.errstate(all="ignore"):
            super().forward(self.context.n_batches)


class _WritesInput(_Mul):
    def forward(self, batch_size: int) -> None:
        super().forward(batch_size)
        params = self.context.params
        assert isinstance(params, MulParams)
        params.multiplier.data[0, 0, 0] += 1


class _Overruns(_Mul):
    def forward(self, batch_size: int) -> None:
        super().forward(batch_size)
        params = self.context.params
        assert isinstance(params, MulParams)
        beyond = np.lib.stride_tricks.as_strided(params.multiplier.data.reshape(-1), (10**4,), (4,))
        beyond[params.multiplier.data.size] = 0


class _Remembers(_Mul):
    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._runs = 0

    def forward(self, batch_size: int) -> None:
        super().forward(batch_size)
        self.context.output.data[0, 0, 0] += self._runs
        self._runs += 1


class _Raises(_Mul):
    def forward(self, batch_size: int) -> None:
        raise IndexError("off by one")


def _seed(admits: Callable[[int], bool]) -> int:
    return next(seed for seed in range(100) if admits(seed))


def _mul_seed() -> int:
    """Return a case with rows past the batch and separate memories."""

    def admits(seed: int) -> bool:
        case = random_case(MUL, seed)
        return case.batch_size < case.n_batches and case.input != case.output

    return _seed(admits)


def test_passes_a_right_kernel() -> None:
    assert [failure for seed in range(10) for failure in check_kernel(_Mul, random_case(MUL, seed))] == []


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (_Inexact, "output: 1 of"),
        (_AllRows, "out: "),
        (_WritesInput, "multiplier: "),
        (_Overruns, "multiplier: written beyond its end"),
        (_Remembers, "out: a second run on the same input gives other bits"),
        (_Raises, "raised IndexError: off by one"),
        (movement.Shift, "raised TypeError: expected ShiftParams"),
    ],
)
def test_catches_a_wrong_kernel(kernel: KernelFactory, message: str) -> None:
    failures = check_kernel(kernel, random_case(MUL, _mul_seed()))
    assert any(failure.startswith(message) for failure in failures), failures


def test_says_where_and_by_how_much_a_value_is_off() -> None:
    (failure,) = check_kernel(_Inexact, random_case(MUL, _mul_seed()))
    assert "the worst at [" in failure
    assert "within the same bits, got" in failure


def test_catches_a_wrong_block_of_q80() -> None:
    class WrongScale(movement.RepeatZ):
        def forward(self, batch_size: int) -> None:
            super().forward(batch_size)
            self.context.output.data["d"][-1, 0] = 1

    assert check_kernel(WrongScale, random_case(REPEAT_Z, 1))[0].startswith("output: ")


@pytest.mark.parametrize("wrong", ["drops", "shifts", "takes too much"])
def test_catches_a_kernel_that_mislays_weights(wrong: str) -> None:
    class Mislays(matmul.Matmul):
        def weight_view(self, offset: int, n_bytes: int) -> memoryview:
            if wrong == "takes too much" and offset:
                return memoryview(bytearray(n_bytes))
            return super().weight_view(offset, n_bytes)

        def load_weight(self, offset: int, data: WeightData) -> None:
            if wrong != "drops" or offset == 0:
                super().load_weight(offset ^ 4 if wrong == "shifts" and offset else offset, data)

    assert check_kernel(Mislays, random_case(MATMUL, 3))


def test_catches_a_kernel_that_takes_bad_indexes() -> None:
    class Trusting(BaseKernel):
        def forward(self, batch_size: int) -> None:
            params, x = self.context.params, self.context.input
            assert isinstance(params, ShiftParams)
            with np.errstate(invalid="ignore"):
                rows = params.indexes.data[0, :batch_size, 0].astype(np.intp)
            cache = self.context.output.data.reshape(-1, x.x)
            cache[rows % len(cache)] = x.data[0, :batch_size]

    assert check_kernel(Trusting, random_case(SHIFT, 0)) == []
    for case in bad_data_cases(SHIFT, 0):
        failures = check_refusal(Trusting, case)
        assert failures[0] == "expected KernelDataError, nothing was raised"
        assert failures[1].startswith("cache: written to")


def test_catches_a_kernel_that_fails_on_bad_indexes_in_its_own_way() -> None:
    class Own(movement.Shift):
        def forward(self, batch_size: int) -> None:
            raise IndexError("row 7")

    case = next(bad_data_cases(SHIFT, 0))
    assert check_refusal(Own, case) == ["expected KernelDataError, got IndexError: row 7"]


def test_tolerances_are_those_of_the_recording_program() -> None:
    assert tolerance_of(MATMUL).relative == 1e-5
    assert tolerance_of(KernelKey(OpCode.EMBEDDING, OpQuantType.F32_F32_Q80)).relative == 0
    for code in OpCode:
        tolerance = tolerance_of(KernelKey(code, OpQuantType.F32_F32_F32))
        assert 0 <= tolerance.relative <= 1e-5
        assert 0 <= tolerance.absolute <= 5e-5


def test_tolerance_takes_nan_for_nan_and_infinity_for_itself_only() -> None:
    expected = np.array([[np.nan, np.inf, 1.0, -np.inf, 2.0]], np.float32)
    came = np.array([[np.nan, np.inf, np.nan, np.inf, 2.0]], np.float32)
    excess = tolerance_of(MATMUL).excess(came, expected)
    assert (excess > 0).tolist() == [[False, False, True, True, False]]
