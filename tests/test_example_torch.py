"""The example plugin: announced as it should be, harmless without PyTorch, and right where PyTorch is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "dllama-ops-torch"
HAS_TORCH = find_spec("torch") is not None


def test_what_is_announced_is_there() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dllama_ops"] == {"torch": "dllama_ops_torch"}
    plugin = (EXAMPLE / "dllama_ops_torch" / "__init__.py").read_text()
    assert "@hookimpl\ndef dllama_register_kernels(" in plugin
    assert "dllama-worker" in project["dependencies"]


def test_its_readme_names_every_module() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    modules = [path.name for path in (EXAMPLE / "dllama_ops_torch").glob("*.py")]
    assert [name for name in modules if f"`dllama_ops_torch/{name}`" not in readme] == []


@pytest.mark.skipif(HAS_TORCH, reason="PyTorch is installed")
def test_without_pytorch_it_is_left_out_with_the_reason(tmp_path: Path) -> None:
    info = tmp_path / "dllama_ops_torch-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dllama-ops-torch\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[dllama_ops]\ntorch = dllama_ops_torch\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(EXAMPLE)])}
    command = [sys.executable, "-m", "dllama_ops", "list"]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "plugin 'torch' failed to load: ModuleNotFoundError: No module named 'torch'" in run.stdout
    assert "MATMUL" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not HAS_TORCH, reason="PyTorch is not installed (pip install ./examples/dllama-ops-torch)"
)
def test_its_own_tests_pass() -> None:
    subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=EXAMPLE, check=True)
