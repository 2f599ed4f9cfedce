"""The command that measures kernels: every op of a model, in text, as JSON and, with matplotlib, as a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dllama_ops import bench, check_context
from dllama_ops.cli import main

QUICK = ["bench", "--model", "tiny", "--rows", "1", "3", "--position", "5"]


@pytest.mark.parametrize("model", bench.MODELS)
@pytest.mark.parametrize("rows", [1, 32])
def test_workloads_keep_the_contract(model: str, rows: int) -> None:
    shape = bench.MODELS[model]
    if shape.vocab_size > 1000:
        shape = replace(
            shape,
            dim=256,
            hidden_dim=96,
            n_heads=8,
            n_kv_heads=2,
            head_dim=32,
            vocab_size=320,
            moe_hidden_dim=96 if shape.n_experts else 0,
        )
    for workload in bench.workloads(shape, rows, 7):
        context = workload.make(1)
        assert check_context(context) == [], workload.name
        assert context.key == workload.key
        assert workload.products > 0
        assert (workload.weight_bytes > 0) == (context.weight is not None)


@pytest.mark.slow
def test_json_has_every_op_and_batch_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--json", "--kernels", "numpy"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [workload.name for workload in bench.workloads(bench.MODELS["tiny"], 1, 5)]
    assert [(each["op"], each["rows"]) for each in report["results"]] == [
        (n, r) for r in (1, 3) for n in names
    ]
    assert all(
        each["kernel"] == "numpy" and each["seconds"] >= each["best_seconds"] > 0
        for each in report["results"]
    )
    assert report["memory_gigabytes_per_second"] > 0


def test_wrong_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--model", "none"], ["--kernels", "none"]):
        assert main(["bench", "--model", "tiny", *arguments]) == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.slow
def test_a_picture_where_matplotlib_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("dllama_ops.bench.measure._BANDWIDTH_BYTES", 1 << 20)
    file = tmp_path / "roofline.png"
    assert main([*QUICK, "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
