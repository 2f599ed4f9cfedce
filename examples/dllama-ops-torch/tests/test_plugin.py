"""The package as people install it: found, checked with the command, chosen only by those who ask for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("hatchling", reason="hatchling, which builds this package, is not installed")

from dllama_ops_torch import devices

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(PACKAGE)], check=True)
    return folder


def dllama_ops(site: Path, *arguments: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "dllama_ops", *arguments, "--json"]
    run = subprocess.run(command, env=environment, cwd=site, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)


def test_the_installed_plugin_passes_its_check(site: Path) -> None:
    report = dllama_ops(site, "check", "torch")
    assert report["passed"]
    assert {(each["variant"], each["op"]) for each in report["kernels"]} == {
        (device.type, op) for device in devices() for op in ("MATMUL", "MULTIHEAD_ATT")
    }
    assert all(each["random"]["passed"] == 20 for each in report["kernels"])


def test_it_is_used_by_who_asks_for_it(site: Path) -> None:
    listing = dllama_ops(site, "list", "--kernels", "only:torch:cpu")
    chosen = {(each["op"], each["quant"]): each["plugin"] for each in listing["kernels"]}
    assert chosen["MATMUL", "Q80_Q40_F32"] == "torch"
    assert chosen["MULTIHEAD_ATT", "F32_F32_F32"] == "torch"
    assert chosen["SILU", "F32_F32_F32"] == "numpy"


def test_nobody_who_does_not_ask_gets_it(site: Path) -> None:
    listing = dllama_ops(site, "list")
    offered = [each for each in listing["kernels"] if "torch:cpu" in each["others"]]
    assert len(offered) == 3
    assert {each["plugin"] for each in listing["kernels"]} <= {"native", "numpy"}
