"""``dllama-ops check``: what is right passes, what is wrong is named in words, and exit codes say which."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllama_ops import KernelChoiceError, KernelKey, native, reference
from dllama_ops.check import run_suite, select
from dllama_ops.check.report import print_report, report_as_json
from dllama_ops.cli import main
from dllama_proto.enums import OpCode, OpQuantType
from tests.ops.plugins import MUL, SILU, Compiler, Fails, Plugin, install, manager

WRONG = """
from dllama_ops import BaseKernel, hookimpl
from dllama_ops.reference.activation import Silu
from dllama_proto.enums import OpCode, OpQuantType

class Doubles(BaseKernel):
    def forward(self, batch_size):
        self.context.output.data[:, :batch_size] *= 2

@hookimpl
def dllama_register_kernels(register):
    register(OpCode.GELU, OpQuantType.F32_F32_F32, Doubles)
    register(OpCode.SILU, OpQuantType.F32_F32_F32, Silu, variant="right")
    register(OpCode.SILU, OpQuantType.F32_F32_F32, Doubles, variant="wrong")
"""


@pytest.fixture
def wrong_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed plugin with a right variant and a wrong one."""
    install(tmp_path, "odd", "odd_kernels", WRONG)
    monkeypatch.syspath_prepend(tmp_path)
    yield "odd"
    sys.modules.pop("odd_kernels", None)


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# What passes --------------------------------------------------------------------------------------------


def test_the_reference_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "numpy", "--cases", "2"]) == 0
    text = capsys.readouterr().out
    assert rows(text)[0] == ["plugin", "op", "quant", "recorded", "random", "chained", "refused", "result"]
    assert ["numpy", "MATMUL", "Q80_Q40_F32", "12/12", "2/2", "3/3", "7/7", "pass"] in rows(text)
    assert text.splitlines()[-1] == "27 of 27 kernels passed (random cases: seeds 0 to 1)"


@pytest.mark.slow
def test_every_installed_plugin_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = check(capsys, "--cases", "3", "--seed", "1000")
    assert code == 0
    assert report["passed"]
    plugins = {each["plugin"] for each in report["kernels"]}
    assert {"numpy"} | ({"native"} if native.unavailable is None else set()) <= plugins
    assert all(each["random"]["passed"] == 3 for each in report["kernels"])
    assert all(each["compiled"]["passed"] == 1 for each in report["segments"])


@pytest.mark.skipif(native.unavailable is not None, reason=str(native.unavailable))
def test_a_variant_and_its_segments(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = check(capsys, "native:baseline", "--cases", "10")
    assert code == 0
    assert {each["variant"] for each in report["kernels"]} == {"baseline"}
    assert [(each["segment"], each["quantised"]) for each in report["segments"]] == [
        (kind, quantised)
        for kind in ("attention", "feed_forward", "experts")
        for quantised in (True, False)
    ]
    assert all(each["compiled"] == {"cases": 2, "passed": 2} for each in report["segments"])


def test_some_ops_only(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = check(capsys, "numpy", "--op", "silu", "--op", "SHIFT", "--cases", "1")
    assert code == 0
    assert [each["op"] for each in report["kernels"]] == ["SILU", "SHIFT"]
    assert report["segments"] == []


# What fails ---------------------------------------------------------------------------------------------


def test_failures_are_shown_in_words(wrong_plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", wrong_plugin, "--cases", "5"]) == 1
    text = capsys.readouterr().out
    assert "odd GELU F32_F32_F32" in text
    assert "  gelu: output: " in text
    assert "expected " in text
    assert "more; --json has them all" in text
    assert ["odd:right", "SILU", "F32_F32_F32", "4/4", "5/5", "4/4", "-", "pass"] in rows(text)
    assert ["odd:wrong", "SILU", "F32_F32_F32", "0/4", "0/5", "0/4", "-", "FAIL"] in rows(text)
    assert text.rstrip().endswith("1 of 3 kernels passed (random cases: seeds 0 to 4)")


def test_a_variant_by_itself(wrong_plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, "odd:right", "--cases", "2")[0] == 0
    code, report = check(capsys, "odd:wrong", "--cases", "2")
    assert code == 1
    (kernel,) = report["kernels"]
    assert (kernel["passed"], kernel["random"]) == (False, {"cases": 2, "passed": 0})
    assert {failure["case"] for failure in kernel["faults"]} >= {"silu", "random-silu-0", "random-silu-1"}


def test_a_plugin_that_cannot_be_loaded_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, "gpu", "gpu_kernels", "import no_such_driver")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "gpu"]) == 1
    assert "broken: plugin 'gpu' failed to load: ModuleNotFoundError" in capsys.readouterr().out


def test_a_wrong_compiler_fails() -> None:
    class Nothing:
        def forward(self, batch_size: int) -> None:
            pass

    selection = select(manager(numpy=reference, lazy=Compiler(lambda ops: Nothing())), "lazy")
    report = run_suite(selection, n_cases=5, seed=0)
    assert not report.passed
    assert [result.passed for result in report.segments] == [False] * 6
    assert report.segments[0].failures[0].failure.startswith("batch 0 (size ")
    text = io.StringIO()
    print_report(report, text)
    assert "lazy attention q80 segments\n  random-attention-q80-0: batch 0 (size " in text.getvalue()


def test_a_key_that_the_reference_lacks_cannot_pass() -> None:
    key = KernelKey(OpCode.GELU, OpQuantType.Q80_Q40_F32)
    report = run_suite(select(manager(numpy=reference, odd=Plugin((key, 0, ""))), "odd"), 1, 0)
    (result,) = report.kernels
    assert "there is nothing to compare with" in result.failures[0].failure


def test_a_plugin_that_raises_while_it_registers_is_a_failure() -> None:
    report = run_suite(select(manager(numpy=reference, bad=Fails()), "bad"), 1, 0)
    assert [failure.plugin for failure in report.broken] == ["bad"]
    assert json.loads(report_as_json(report))["broken"][0]["why"] == "RuntimeError: no such processor"


# What there is not --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nummpy"], "expected one of native, "),
        (["numpy:avx2"], "got 'numpy:avx2'"),
        (["numpy,native"], "expected one PLUGIN[:VARIANT]"),
        (["numpy", "--op", "MATMULT"], "--op: expected one of MERGE_ADD, "),
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dllama-ops check: error: ")
    assert message in error


def test_what_was_named_but_offers_nothing_is_said() -> None:
    plugins = manager(numpy=reference, shy=Plugin(), one=Plugin((MUL, 0, "")))
    with pytest.raises(KernelChoiceError, match="plugin 'shy' offers nothing on this machine"):
        select(plugins, "shy")
    with pytest.raises(KernelChoiceError, match="expected a plugin with a kernel for SILU, got 'one'"):
        select(plugins, "one", {OpCode.SILU})


def test_without_a_name_kernels_that_would_clash_are_all_checked() -> None:
    plugins = manager(numpy=reference, a=Plugin((SILU, 5, "")), b=Plugin((SILU, 5, "")))
    chosen = select(plugins, ops={OpCode.SILU})
    assert [entry.plugin for entry in chosen.entries] == ["a", "b", "numpy"]
