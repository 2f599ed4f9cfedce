"""Real clusters of two processes with these kernels: the text and the perplexity that the reference has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Announce the package of this checkout, whether it is installed or not."""
    folder = tmp_path_factory.mktemp("announced")
    info = folder / "dllama_ops_torch-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dllama-ops-torch\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[dllama_ops]\ntorch = dllama_ops_torch\n")
    return folder


def root(site: Path, *arguments: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(PACKAGE)])}
    command = [sys.executable, "-m", "dllama_worker.root", *arguments, "--local-workers", "1", "--json"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_a_model_in_f32_writes_the_same_tokens(site: Path, tmp_path: Path) -> None:
    model, tokenizer = str(tmp_path / "gqa.m"), str(tmp_path / "gqa.t")
    write = [sys.executable, "-m", "dllama_worker.model.synthetic", "gqa", "f32", model, tokenizer]
    subprocess.run([*write, "--seed", "11"], check=True, capture_output=True)
    options = ["--model", model, "--tokenizer", tokenizer, "--prompt", "a b c d", "--steps", "40"]
    texts = {
        kernels: root(site, "inference", *options, "--temperature", "0", "--kernels", kernels)["tokens"]
        for kernels in ("numpy", "torch:cpu")
    }
    assert len(texts["numpy"]) > 20
    assert texts["torch:cpu"] == texts["numpy"]


def test_the_demo_model_has_the_same_perplexity(site: Path) -> None:
    prompt = "ROMEO: What light through yonder window breaks?"
    came, expected = (
        root(site, "perplexity", "--prompt", prompt, "--kernels", kernels)["perplexity"]
        for kernels in ("torch:cpu", "numpy")
    )
    assert came == pytest.approx(expected, rel=0.005)
