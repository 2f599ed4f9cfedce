"""Plugins are found one by one: built in, or announced by installed packages; a broken one stops no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllama_ops import build_kernel_table, hookimpl, make_plugin_manager
from tests.ops.plugins import MUL, Plugin, install, manager

GOOD = """
from dllama_ops import BaseKernel, hookimpl
from dllama_proto.enums import OpCode, OpQuantType

class MyMul(BaseKernel):
    def forward(self, batch_size):
        x, y = self.context.input.data, self.context.params.multiplier.data
        self.context.output.data[:, :batch_size] = x[:, :batch_size] * y[:, :batch_size]

@hookimpl
def dllama_register_kernels(register):
    register(OpCode.MUL, OpQuantType.F32_F32_F32, MyMul, priority=1000)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty folder in which packages are installed for this test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in {"my_kernels", "a_broken_one"} & set(sys.modules):
        del sys.modules[name]


def test_the_reference_is_built_in() -> None:
    plugins = make_plugin_manager()
    assert plugins.has_plugin("numpy")
    assert "numpy" not in {failure.plugin for failure in plugins.failures}


def test_managers_are_independent() -> None:
    one, two = make_plugin_manager(), make_plugin_manager()
    one.add("mine", lambda: Plugin((MUL, 1000, "")))
    assert build_kernel_table(one).get(MUL).plugin == "mine"
    assert build_kernel_table(two, prefer="numpy").get(MUL).plugin == "numpy"


def test_an_installed_package_adds_kernels(site: Path) -> None:
    install(site, "mine", "my_kernels", GOOD)
    entry = build_kernel_table(make_plugin_manager()).get(MUL)
    assert (entry.source, entry.kernel, entry.priority) == ("mine", "MyMul", 1000)


@pytest.mark.parametrize(
    ("source", "stage", "reason"),
    [
        ("import no_such_driver", "load", "ModuleNotFoundError: No module named 'no_such_driver'"),
        ("def broken(:", "load", "SyntaxError: "),
        ("raise SystemExit('unlicensed')", "load", "SystemExit: unlicensed"),
        ("answer = 42", "register", "implements no hook; mark its functions with dllama_ops.hookimpl"),
        (
            "from dllama_ops import hookimpl\n@hookimpl\ndef dllama_register_kernel(register): pass",
            "register",
            "there is no hook dllama_register_kernel",
        ),
        (
            "from dllama_ops import hookimpl\n@hookimpl\ndef dllama_register_kernels(registry): pass",
            "register",
            "PluginValidationError: ",
        ),
    ],
)
def test_a_broken_package_stops_no_other(site: Path, source: str, stage: str, reason: str) -> None:
    install(site, "broken", "a_broken_one", source)
    install(site, "mine", "my_kernels", GOOD)
    plugins = make_plugin_manager()
    (failure,) = (failure for failure in plugins.failures if failure.plugin == "broken")
    assert failure.stage == stage
    assert reason in failure.reason
    table = build_kernel_table(plugins)
    assert table.get(MUL).plugin == "mine"
    assert failure in table.failures
    assert not plugins.has_plugin("broken")


def test_nobody_takes_the_name_of_another(site: Path) -> None:
    install(site, "numpy", "my_kernels", GOOD)
    plugins = make_plugin_manager()
    (failure,) = (failure for failure in plugins.failures if failure.plugin == "numpy")
    assert "another plugin has the name" in failure.reason
    assert build_kernel_table(plugins, prefer="numpy").get(MUL).kernel == "Mul"


def test_one_object_cannot_be_two_plugins() -> None:
    plugin = Plugin((MUL, 1, ""))
    plugins = manager(one=plugin, two=plugin)
    assert [failure.plugin for failure in plugins.failures] == ["two"]


def test_implementers_call_one_plugin_each() -> None:
    class Says:
        def __init__(self, word: str) -> None:
            self._word = word

        @hookimpl
        def dllama_compile_segment(self, n_threads: int) -> Any:
            return f"{self._word} {n_threads}"

    plugins = manager(b=Says("b"), a=Says("a"), c=Plugin((MUL, 1, "")))
    hooks = plugins.implementers("dllama_compile_segment")
    assert [(name, call(ops=[], n_threads=2)) for name, call in hooks] == [("a", ["a 2"]), ("b", ["b 2"])]
