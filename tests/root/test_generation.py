"""Whole clusters of real processes on the demo model: the text is the C++ program's, whatever the nodes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllama_proto.enums import FloatType
from dllama_proto.floats import Q40_BLOCK, dequantize_q40
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from dllama_worker.model.opening import open_model

REPOSITORY = Path(__file__).parents[2]
EXPECTED = json.loads((REPOSITORY / "tests/data/demo/expected.json").read_text(encoding="utf-8"))


def root(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllama_worker.root", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=check,
    )


def document(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(root(*arguments, "--json").stdout)
    return found


@pytest.fixture(scope="session")
def f32_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with every Q40 tensor written as F32."""
    model = open_model(Path(MODEL_PATH))
    path = tmp_path_factory.mktemp("twin") / "demo-f32.m"
    stored = Path(MODEL_PATH).read_bytes()
    start = min(entry.offset for entry in model.tensors.values())
    header = np.frombuffer(stored[8:start], dtype="<i4").reshape(-1, 2).copy()
    header[header[:, 0] == 13, 1] = FloatType.F32
    with path.open("wb") as file:
        file.write(stored[:8] + header.tobytes())
        for entry in sorted(model.tensors.values(), key=lambda entry: entry.offset):
            data = stored[entry.offset : entry.offset + entry.n_bytes]
            if entry.float_type is FloatType.Q40:
                data = dequantize_q40(np.frombuffer(data, dtype=Q40_BLOCK)).tobytes()
            file.write(data)
    return path


def model_arguments(model: Path) -> list[str]:
    return ["--model", str(model), "--tokenizer", str(TOKENIZER_PATH)]


@pytest.mark.slow
@pytest.mark.parametrize("n_nodes", [1, 2, 4])
def test_the_f32_twin_writes_exactly_the_cpp_programs_text(f32_twin: Path, n_nodes: int) -> None:
    expected = EXPECTED["results"]["f32-f32"][str(n_nodes)]
    result = document(
        "inference", *model_arguments(f32_twin), "--prompt", EXPECTED["prompt"],
        "--steps", str(EXPECTED["steps"]), "--temperature", "0", "--cpp-prompt-end",
        "--local-workers", str(n_nodes - 1),
    )  # fmt: skip
    assert result["text"] == expected["text"]
    assert len(result["tokens"]) == expected["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster",
    [
        ["--local-workers", "2"],
        ["--local-workers", "7"],
        ["--local-workers", "1", "--split", "3:1"],
        ["--local-workers", "3", "--split", "5:1:1:1"],
        ["--local-workers", "2", "--root-share", "0"],
    ],
    ids=" ".join,
)
def test_any_split_of_the_f32_twin_writes_exactly_the_cpp_programs_text(
    f32_twin: Path, cluster: list[str]
) -> None:
    result = document(
        "inference", *model_arguments(f32_twin), "--prompt", EXPECTED["prompt"],
        "--steps", "60", "--temperature", "0", "--cpp-prompt-end", *cluster,
    )  # fmt: skip
    assert len(result["text"]) > 80
    assert EXPECTED["results"]["f32-f32"]["1"]["text"].startswith(result["text"])


@pytest.mark.slow
@pytest.mark.parametrize("n_nodes", [1, 2, 4])
@pytest.mark.parametrize("kind", ["f32-f32", "q40-q80"])
def test_perplexity_is_the_cpp_programs(f32_twin: Path, n_nodes: int, kind: str) -> None:
    model = f32_twin if kind == "f32-f32" else Path(MODEL_PATH)
    result = document(
        "perplexity", *model_arguments(model), "--prompt", EXPECTED["perplexity_prompt"],
        "--local-workers", str(n_nodes - 1),
    )  # fmt: skip
    expected = EXPECTED["results"][kind][str(n_nodes)]["perplexity"]
    assert result["perplexity"] == pytest.approx(expected, rel=1e-5 if kind == "f32-f32" else 0.005)


@pytest.mark.slow
@pytest.mark.parametrize("n_nodes", [1, 2, 4])
def test_the_q40_model_writes_the_cpp_programs_text_up_to_a_near_tie(n_nodes: int) -> None:
    result = document(
        "inference", "--prompt", EXPECTED["prompt"], "--steps", str(EXPECTED["steps"]),
        "--temperature", "0", "--cpp-prompt-end", "--local-workers", str(n_nodes - 1),
    )  # fmt: skip
    expected = EXPECTED["results"]["q40-q80"][str(n_nodes)]["text"]
    pairs = zip(result["text"], expected, strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    # All three begin alike; the first near tie of this text comes after 90 characters.
    assert common == len(expected) or common > 80, (common, result["text"], expected)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_text_and_another_one_another() -> None:
    common = ["inference", "--prompt", "JULIET:", "--steps", "40", "--temperature", "0.8", "--topp", "0.9"]
    texts = [document(*common, "--seed", seed)["text"] for seed in ("12345", "12345", "54321")]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", ["1", "2"])
def test_workers_with_their_own_copy_of_the_model_need_no_weights(n_workers: str) -> None:
    common = [
        "inference", "--prompt", "ROMEO:", "--steps", "40", "--temperature", "0", "--local-workers", n_workers,
    ]  # fmt: skip
    streamed, local = document(*common), document(*common, "--weights", "local")
    assert streamed["tokens"] == local["tokens"]
    assert local["nodes"][0]["sent_bytes"] < streamed["nodes"][0]["sent_bytes"] / 4


@pytest.mark.slow
def test_text_goes_to_standard_output_and_everything_else_does_not() -> None:
    result = root(
        "inference", "--prompt", "ROMEO:", "--steps", "20", "--temperature", "0", "--local-workers", "1"
    )
    assert result.stdout.startswith("ROMEO:\n")
    assert "tokens/s" not in result.stdout
    assert "Prediction: 14 tokens" in result.stderr
    assert "demo model" in result.stderr


@pytest.mark.slow
def test_chat_with_a_built_in_form_ends_with_the_input() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dllama_worker.root", "chat", "--chat-template", "llama2", "--temperature", "0",
         "--max-seq-len", "96"],
        cwd=REPOSITORY, input="\nWho are you?\n", capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "Assistant" in result.stdout
    assert "(end of context)" in result.stderr


@pytest.mark.slow
def test_a_worker_that_dies_in_mid_generation_is_named_with_the_position() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "ROMEO:", "--steps", "512",
         "--temperature", "0", "--local-workers", "3"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(40)  # it generates
        children = [int(pid) for pid in _children(process.pid)]
        assert len(children) == 3
        os.kill(children[1], 9)
        process.stdout.read()
        complaint = process.stderr.read().decode()
        assert process.wait(30) == 3
    assert re.search(r"lost node [123] \(127\.0\.0\.1:\d+\) at position \d+: ", complaint)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a worker process was left behind"


def _children(pid: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{pid}\n" in status.read_text(encoding="utf-8"):
                found.append(status.parent.name)
    return sorted(found, key=int)


@pytest.mark.slow
def test_a_worker_that_cannot_be_reached_is_named() -> None:
    started = time.monotonic()
    result = root("inference", "--prompt", "x", "--steps", "9", "--workers", "127.0.0.1:9", check=False)
    assert result.returncode == 3
    assert "127.0.0.1:9" in result.stderr
    assert "Connection refused" in result.stderr
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["inference", "--prompt", "x", "--workers", "nohost"], "expected HOST:PORT, got 'nohost'"),
        (["inference", "--prompt", "x", "--workers", "a..b:1"], "expected HOST:PORT, got 'a..b:1'"),
        (["inference", "--prompt", "x", "--temperature", "-1"], "expected 0 or more, got -1"),
        (["inference", "--prompt", "x", "--tokenizer", "x.t"], "--tokenizer belongs to a model"),
        (["inference"], "--prompt"),
        (
            ["inference", "--prompt", "x", "--workers", *(f"127.0.0.1:{port}" for port in range(9, 17))],
            "9 computing nodes cannot share this model: it has 8 query heads",
        ),
        (
            ["inference", "--prompt", "x", "--workers", "127.0.0.1:9", "--split", "1:2:3"],
            "expected 2: the root and 1",
        ),
        (
            ["inference", "--prompt", "x", "--split", "3:1", "--root-share", "0"],
            "goes with an even or auto split",
        ),
        (
            ["inference", "--prompt", "x", "--split", "most"],
            "expected even, auto, or a number for each node",
        ),
        (
            [
                "inference",
                "--prompt",
                "x",
                "--workers",
                "127.0.0.1:9",
                "--split",
                "3:1",
                "--weights",
                "local",
            ],
            "--weights local goes with --split even",
        ),
        (
            ["inference", "--prompt", "x", "--buffer-float-type", "f32"],
            "q40 weights go with --buffer-float-type q80",
        ),
    ],
)
def test_wrong_arguments_end_with_code_2(arguments: list[str], complaint: str) -> None:
    result = root(*arguments, check=False)
    assert result.returncode == 2
    assert complaint in result.stderr
