"""How many threads a node computes with unless somebody says: physical cores, limits, others on the machine."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dllama_ops import native
from dllama_worker.node import machine
from dllama_worker.node.machine import default_threads, physical_cores
from dllama_worker.root.options import RootOptions
from dllama_worker.worker.options import WorkerOptions

#: Eight processors on four cores, as Linux numbers them: the second threads of all cores come last.
SIBLINGS = ["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"]


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    for cpu, siblings in enumerate(SIBLINGS):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("cpus", "cores"),
    [(range(8), 4), ([0, 4], 1), ([0, 1, 2, 3], 4), ([0, 1, 4, 5, 6], 3), ([7], 1)],
)
def test_threads_of_one_core_count_once(cpus: list[int], cores: int, topology: Path) -> None:
    assert physical_cores(cpus, topology) == cores


def test_where_the_system_does_not_say_each_counts(tmp_path: Path) -> None:
    assert physical_cores([0, 1, 5], tmp_path) == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_only_cores_that_this_process_may_use_count() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from dllama_worker.node.machine import default_threads, physical_cores\n"
        "print(physical_cores(), default_threads())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "1"]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float | None], None]:
    """Give what sets the cores of this machine, and what control groups allow."""

    def have(n_cores: int, allowed: float | None) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(machine, "physical_cores", lambda: n_cores)
        monkeypatch.setattr(machine, "cgroup_cores", lambda: allowed)

    return have


@pytest.mark.parametrize(
    ("n_cores", "allowed", "n_nodes", "threads"),
    [
        (8, None, 1, 8),
        (8, 3.5, 1, 3),
        (8, 16.0, 1, 8),
        (8, 0.5, 1, 1),
        (8, None, 3, 2),
        (8, 4.0, 2, 2),
        (2, None, 4, 1),
    ],
)
def test_a_node_has_its_part_of_the_cores_and_of_the_time(
    n_cores: int,
    allowed: float | None,
    n_nodes: int,
    threads: int,
    cores: Callable[[int, float | None], None],
) -> None:
    cores(n_cores, allowed)
    assert default_threads(n_nodes) == threads


@pytest.mark.parametrize(
    ("limit", "threads"), [("1", 1), ("3", 3), ("64", 8), ("", 8), ("0", 8), ("4,2", 8), ("-1", 8)]
)
def test_the_variable_that_others_go_by_limits_it(
    limit: str,
    threads: int,
    cores: Callable[[int, float | None], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores(8, None)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert default_threads() == threads


def test_options_take_that_unless_somebody_says(cores: Callable[[int, float | None], None]) -> None:
    cores(12, None)
    assert WorkerOptions().n_threads == 12
    assert WorkerOptions(n_threads=3).n_threads == 3
    assert RootOptions("inference").n_threads == 12
    assert RootOptions("inference", local_workers=3).n_threads == 3
    assert RootOptions("inference", local_workers=3, n_threads=12).n_threads == 12


def test_root_and_worker_say_in_one_line_what_they_compute_with() -> None:
    command = [sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "a", "--steps", "3"]
    run = subprocess.run(
        [*command, "--nthreads", "2", "--kernels", "only:numpy", "--log-format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    entries = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    [said] = [entry for entry in entries if entry["event"] == "compute"]
    assert said["message"].startswith("kernels numpy; 2 threads; the processor has ")
    assert said["n_threads"] == 2
    assert list(said["kernels"]) == ["numpy"]


@pytest.mark.skipif(native.unavailable is not None, reason="needs the native kernels")
def test_threads_that_the_system_refuses_are_the_machines_fault() -> None:
    def little_memory() -> None:
        resource.setrlimit(
            resource.RLIMIT_AS, (1 << 30, 1 << 30)
        )  # of which each thread's stack takes 8 MB

    command = [sys.executable, "-m", "dllama_worker.root", "inference", "--prompt", "a", "--steps", "3"]
    run = subprocess.run(
        [*command, "--nthreads", "4000"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=little_memory,
    )
    assert "cannot start 4000 threads to compute with, ask for fewer" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.returncode == 4
