"""A root that outlives its workers: the text is what it would have been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dllama_worker.root.history import History
from tests.helpers.processes import WorkerProcess

REPOSITORY = Path(__file__).parents[2]


def generate(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "ROMEO:\nWhat light", "--steps",
            "160", "--temperature", "0.8", "--seed", "5", *arguments,
        ],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["stream", "local"])
def test_a_worker_that_is_killed_twice_changes_nothing_of_the_text(weights: str) -> None:
    model = ["--model", "dllama_worker/demo/demo-q40.m"] if weights == "local" else []
    workers = [WorkerProcess(*model) for _ in range(3)]
    addresses = [f"127.0.0.1:{worker.port}" for worker in workers]
    arguments = ["--workers", *addresses, "--weights", weights, "--reconnect", "30"]
    if model:
        arguments += [*model, "--tokenizer", "dllama_worker/demo/demo.t"]
    expected, _ = generate(*arguments).communicate(timeout=60)
    assert len(expected) > 200
    root = generate(*arguments)
    assert root.stdout is not None
    said = ""
    for number in (1, 2):
        while len(said) < 70 * number:
            said += root.stdout.read(1)
        lost = workers[number]
        lost.process.kill()
        lost.wait()
        workers[number] = WorkerProcess(*model, "--port", str(lost.port))
    said += root.stdout.read()
    _, complaints = root.communicate(timeout=60)
    assert root.returncode == 0, complaints
    assert said == expected
    assert complaints.count("trying to connect again for 30 s (--reconnect)") == 2
    for worker in workers:
        assert worker.terminate() == 0


@pytest.mark.slow
def test_a_worker_that_stays_away_ends_the_root_when_the_time_is_over() -> None:
    worker = WorkerProcess()
    root = generate("--workers", f"127.0.0.1:{worker.port}", "--reconnect", "0.7")
    assert root.stdout is not None
    root.stdout.read(40)
    worker.process.kill()
    worker.wait()
    _, complaints = root.communicate(timeout=60)
    assert root.returncode == 3
    assert "cannot be reached" in complaints
    assert "Connection refused" in complaints


def test_reconnect_needs_workers_that_somebody_else_runs() -> None:
    root = generate("--local-workers", "1", "--reconnect", "5")
    _, complaints = root.communicate(timeout=60)
    assert root.returncode == 2
    assert "--reconnect goes with --workers" in complaints


def test_history_is_cut_where_a_conversation_goes_back() -> None:
    history = History()
    history.add(0, [1, 2, 3])
    history.add(3, [4])
    history.add(4, [5])
    history.cut(5)
    assert len(list(history.batches())) == 3
    history.cut(2)
    assert list(history.batches()) == [(0, (1, 2))]
    history.add(2, [9])
    assert list(history.batches()) == [(0, (1, 2)), (2, (9,))]
