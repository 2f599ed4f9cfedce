"""``dllama-ops``: the table as people, scripts and programs see it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dllama_ops import build_kernel_table, make_plugin_manager
from dllama_ops.cli import main
from dllama_ops.listing import table_as_json, table_as_text
from tests.ops.plugins import MUL, Compiler, Fails, Plugin, install, manager, reference

TABLE = build_kernel_table(
    manager(
        numpy=reference(),
        fast=Compiler(lambda ops: None, (MUL, 10, "avx2"), (MUL, 5, "")),
        broken=Fails(),
    )
)


def test_plain_columns() -> None:
    assert table_as_text(TABLE).splitlines() == [
        "op    quant        plugin     kernel  why",
        "SILU  F32_F32_F32  numpy      Idle    the only one",
        "MUL   F32_F32_F32  fast:avx2  Idle    highest priority: 10 before fast 5, numpy -100",
        "",
        "plugins: broken, fast, numpy",
        "may take whole segments: fast",
        "broken: plugin 'broken' failed to register its kernels: RuntimeError: no such processor",
    ]


def test_json_says_all_that_the_columns_say_and_more() -> None:
    listing = json.loads(table_as_json(TABLE))
    assert listing["kernels"][1] == {
        "op": "MUL",
        "quant": "F32_F32_F32",
        "plugin": "fast",
        "variant": "avx2",
        "kernel": "Idle",
        "priority": 10,
        "why": "highest priority: 10 before fast 5, numpy -100",
        "others": ["fast", "numpy"],
    }
    assert listing["plugins"] == ["broken", "fast", "numpy"]
    assert listing["segment_compilers"] == ["fast"]
    assert [fault["plugin"] for fault in listing["broken"]] == ["broken"]


def test_list_prints_this_machines_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--kernels", "numpy"]) == 0
    text = capsys.readouterr().out
    assert text.strip() == table_as_text(build_kernel_table(make_plugin_manager(), prefer="numpy"))
    assert "MATMUL         Q80_Q40_F32" in text


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert len(listing["kernels"]) >= 27


@pytest.mark.parametrize("kernels", ["cuda", "numpy:avx2", "numpy,", ":"])
def test_kernels_that_do_not_exist_are_a_wrong_argument(
    kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--kernels", kernels]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dllama-ops list: error: argument --kernels: expected ")
    assert repr(kernels) in error


@pytest.mark.parametrize("arguments", [[], ["lst"], ["list", "--jsn"], ["list", "extra"]])
def test_wrong_arguments_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    [complaint] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"(dllama-ops(?: list)?): error: .+ \(see \1 --help\)", complaint)


def test_plugins_that_contradict_each_other_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = (
        "from dllama_ops import BaseKernel, hookimpl\n"
        "from dllama_proto.enums import OpCode, OpQuantType\n"
        "@hookimpl\n"
        "def dllama_register_kernels(register):\n"
        "    register(OpCode.MUL, OpQuantType.F32_F32_F32, BaseKernel)\n"
    )
    for name in ("first", "second"):
        install(tmp_path, name, f"clashing_{name}", source)
    try:
        assert main(["list"]) == 2
        assert "plugins 'first' and 'second' both offer a kernel for MUL" in capsys.readouterr().err
        assert main(["list", "--kernels", "second"]) == 0
    finally:
        for name in ("first", "second"):
            sys.modules.pop(f"clashing_{name}", None)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from dllama_ops.cli import make_parser\n"
        "make_parser().format_help()\n"
        "print(sorted({'numpy', 'rich', 'pluggy', 'construct'} & set(sys.modules)))"
    )
    heavy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_kernels_do_not_load_the_parser() -> None:
    code = (
        "import sys, dllama_ops.table, dllama_ops.reference, dllama_ops.testing\n"
        "print('construct' in sys.modules, 'dllama_proto.connection' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False False"


@pytest.mark.slow
def test_on_a_terminal_the_table_has_a_bold_head() -> None:
    """Run the command on a real pseudo-terminal."""
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
        environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "dllama_ops", "list", "--kernels", "numpy"]
        process = subprocess.Popen(command, stdout=theirs, env=environment)
        os.close(theirs)
        text = b""
        try:
            while data := os.read(ours, 65536):
                text += data
        except OSError:
            pass  # the other end is closed
        assert process.wait() == 0
    finally:
        os.close(ours)
    assert b"\x1b[1mop" in text
    assert b"Q80_Q40_F32" in text


@pytest.mark.slow
def test_a_broken_plugin_shows_but_stops_nothing(tmp_path: Path) -> None:
    install(tmp_path, "gpu", "gpu_kernels", "import no_such_driver")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "dllama_ops", "list"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert (
        "broken: plugin 'gpu' failed to load: ModuleNotFoundError: No module named 'no_such_driver'"
        in run.stdout
    )
    assert "MATMUL" in run.stdout


def test_help_names_every_command() -> None:
    from dllama_ops.cli import make_parser

    assert "list" in make_parser().format_help()


def test_an_empty_table_says_so() -> None:
    text = table_as_text(build_kernel_table(manager(odd=Plugin())))
    assert text.splitlines()[0].split() == ["op", "quant", "plugin", "kernel", "why"]
    assert "may take whole segments: none" in text


def test_native_kernels_that_were_not_built_are_named_with_the_reason_and_nowhere_else() -> None:
    code = (
        "import sys\n"
        "sys.modules['dllama_ops.native._core'] = None\n"
        "from dllama_ops.cli import main\n"
        "sys.exit(main(['list']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no native kernels: the extension module was not built" in run.stdout
    assert not [line for line in run.stdout.splitlines() if "whole segments" in line and "native" in line]
    assert "MATMUL" in run.stdout
