"""A short slice of the search, the same in every run; and everything that it ever found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.findings import paths, saved
from tests.fuzz.live import LiveWorker
from tests.fuzz.mutation import changed_bytes, changed_config, whole_stream
from tests.fuzz.targets import bind_and_run, kernel_sets, parse


def said_by_many_roots(n: int) -> list[bytes]:
    return [changed_bytes(Random(f"slice.{number}")) for number in range(n)]


def test_recordings_themselves_are_understood_and_run() -> None:
    assert parse(whole_stream()) is not None
    for kernels in kernel_sets():
        assert bind_and_run(whole_stream(), kernels).startswith("run")


@pytest.mark.slow
def test_the_parser_takes_anything() -> None:
    understood = [parse(said) is not None for said in said_by_many_roots(150)]
    assert 30 < sum(understood) < 120


@pytest.mark.slow
@pytest.mark.parametrize("kernels", kernel_sets())
def test_configs_that_look_valid_are_refused_or_run(kernels: str) -> None:
    outcomes = [bind_and_run(changed_config(Random(f"slice.{number}")), kernels) for number in range(60)]
    assert {"run", "refused by the binder", "refused by the protocol"} <= set(outcomes)


@pytest.fixture
def worker() -> Iterator[LiveWorker]:
    made = LiveWorker()
    yield made
    made.kill()


@pytest.mark.slow
def test_a_running_worker_survives_anything_and_serves_the_next_root(worker: LiveWorker) -> None:
    for said in [*said_by_many_roots(100), *saved()]:
        worker.tell(said)
    worker.close()


@pytest.mark.slow
def test_a_running_worker_survives_whatever_a_cluster_says(worker: LiveWorker) -> None:
    for number in range(30):
        worker.play(Random(f"slice.{number}"))
    worker.close()


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
@pytest.mark.parametrize("kernels", kernel_sets())
def test_what_was_found_is_mended(path: Path, kernels: str) -> None:
    bind_and_run(path.read_bytes(), kernels)
