"""An op that is registered at run time: checked, drawn and offered as those that were always there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dllama_ops import (
    BaseKernel,
    KernelKey,
    RegisterKernel,
    build_kernel_table,
    check_context,
    hookimpl,
    make_plugin_manager,
)
from dllama_ops.check import run_suite, select
from dllama_ops.cli import main
from dllama_ops.params import MulParams, NoParams
from dllama_ops.reference.specs import OPS
from dllama_ops.testing import (
    bad_data_cases,
    check_kernel,
    check_refusal,
    golden_names,
    random_case,
    reference_kernels,
    tolerance_of,
)
from dllama_ops.tolerance import EXACT
from dllama_proto.enums import OpCode
from tests.helpers.new_op import KEY_TYPES, PICK, Pick, PickParams, kernel_spec, registered

KEY = KernelKey(PICK, KEY_TYPES)


@pytest.fixture
def pick() -> Iterator[None]:
    with registered():
        yield


class _OneTooFar(BaseKernel):
    """Takes the value beside the one that was asked for."""

    def forward(self, batch_size: int) -> None:
        params: Any = self.context.params
        source, target = self.context.input.data, self.context.output.data
        for row in range(batch_size):
            index = int(params.indexes.data[0, row, 0])
            target[0, row] = source[0, row, index - 1] * np.float32(params.factor) + 1


@pytest.mark.usefixtures("pick")
def test_the_contract_checks_it() -> None:
    context = random_case(KEY, 0).bind().context
    assert check_context(context) == []
    assert check_context(replace(context, params=NoParams())) == [
        "params: expected PickParams, got NoParams"
    ]
    [fault] = check_context(replace(context, output=context.input))[:1]
    assert fault.startswith("output: expected [1][")


def test_without_a_spec_the_contract_says_so() -> None:
    with registered():
        context = random_case(KEY, 0).bind().context
    [fault] = check_context(context)
    assert fault == "code: expected an op that is registered, got <OpCode.PICK: 64>"


@pytest.mark.usefixtures("pick")
@pytest.mark.parametrize("seed", range(5))
def test_the_kit_draws_cases_and_checks_kernels(seed: int) -> None:
    case = random_case(KEY, seed)
    assert case.name == f"random-pick-{seed}"
    assert check_kernel(Pick, case) == []
    [failure] = check_kernel(_OneTooFar, case)[:1]
    assert failure.startswith(("output: ", "raised IndexError"))


@pytest.mark.usefixtures("pick")
def test_indexes_out_of_range_must_be_refused() -> None:
    cases = list(bad_data_cases(KEY, 1))
    assert len(cases) == 7
    for case in cases:
        assert check_refusal(Pick, case) == []
        assert check_refusal(_OneTooFar, case) != []


@pytest.mark.usefixtures("pick")
def test_the_reference_offers_its_definition_and_plugins_offer_theirs() -> None:
    assert reference_kernels()[KEY] is Pick
    assert tolerance_of(KEY) is EXACT
    assert golden_names(KEY) == []
    manager = make_plugin_manager()
    table = build_kernel_table(manager)
    assert (table.get(KEY).plugin, table.get(KEY).factory) == ("numpy", Pick)

    class Mine:
        @hookimpl
        def dllama_register_kernels(self, register: RegisterKernel) -> None:
            register(PICK, KEY_TYPES, _OneTooFar, priority=5)

    manager.register(Mine(), "mine")
    assert build_kernel_table(manager).get(KEY).plugin == "mine"
    report = run_suite(select(manager, "mine"), n_cases=3, seed=0)
    [result] = report.kernels
    assert result.random.cases == 3
    assert result.random.passed == 0


@pytest.mark.usefixtures("pick")
def test_the_command_takes_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "numpy", "--op", "pick", "--cases", "2"]) == 0
    assert re.search(r"numpy +PICK +F32_F32_F32 .* pass", capsys.readouterr().out)


def test_the_command_refuses_its_name_without_a_spec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "numpy", "--op", "pick"]) == 2
    assert "expected one of MERGE_ADD" in capsys.readouterr().err


# The registry -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pick")
def test_a_code_has_one_spec() -> None:
    with pytest.raises(ValueError, match="op code 64 is registered as PICK with PickParams: PICK with"):
        OPS.register(kernel_spec())
    other = replace(kernel_spec(), code=OpCode.MUL)
    with pytest.raises(ValueError, match="MUL with MulParams: MUL with PickParams needs another code"):
        OPS.register(other)
    assert OPS.get(OpCode.MUL).params is MulParams


def test_what_is_removed_is_gone() -> None:
    before = list(OPS)
    with registered():
        assert list(OPS)[-1].params is PickParams
        assert len(OPS) == len(before) + 1
    assert list(OPS) == before
    assert KEY not in reference_kernels()
    with pytest.raises(KeyError):
        OPS.get(PICK)
    with pytest.raises(KeyError):
        random_case(KEY, 0)


def test_every_code_of_the_protocol_has_a_spec_in_order() -> None:
    assert [spec.code for spec in OPS] == list(OpCode)
