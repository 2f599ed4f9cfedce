"""Every command and every package says the version that pyproject.toml has."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from dllama_ops.cli import main as ops_main
from dllama_proto.cli import main as proto_main
from dllama_worker.__main__ import main as worker_main
from dllama_worker.root.cli import main as root_main

VERSION = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("package", ["dllama_proto", "dllama_ops", "dllama_worker"])
def test_a_package_has_its_version(package: str) -> None:
    assert import_module(package).__version__ == VERSION


@pytest.mark.parametrize(
    ("main", "name"),
    [
        (proto_main, "dllama-proto"),
        (ops_main, "dllama-ops"),
        (worker_main, "dllama-worker"),
        (root_main, "dllama-root"),
    ],
)
def test_a_command_says_its_version(main: object, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{name} {VERSION}\n"
