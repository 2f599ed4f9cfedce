"""A forward in its order: ops, then syncs, segment by segment, and where its time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from dllama_ops.errors import KernelDataError
from dllama_ops.kernel import CompiledSegment
from dllama_worker.errors import PeerLost
from dllama_worker.node import executor as executor_module
from dllama_worker.node.executor import Executor
from dllama_worker.node.profile import SegmentTimes


class Journal:
    """What happened, in order, on a clock that only steps move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.now = 0.0
        monkeypatch.setattr(executor_module, "perf_counter", lambda: self.now)

    def step(self, name: str, seconds: float) -> None:
        self.steps.append(name)
        self.now += seconds


class Whole:
    """A segment that cannot tell its ops apart."""

    def __init__(self, journal: Journal, name: str, seconds: float) -> None:
        self._journal, self._name, self._seconds = journal, name, seconds

    def forward(self, batch_size: int) -> None:
        self._journal.step(f"{self._name} of {batch_size}", self._seconds)


class Profiled(Whole):
    """One that can: two ops, of which the second takes three times as long."""

    def profile(self, batch_size: int) -> Sequence[float]:
        self._journal.step(f"{self._name} of {batch_size}, profiled", self._seconds)
        return (self._seconds / 4, 3 * self._seconds / 4)


class Syncs:
    """A synchronizer whose syncs take a second each."""

    def __init__(self, journal: Journal, fails_at: int | None = None) -> None:
        self._journal, self._fails_at = journal, fails_at

    def sync(self, segment_index: int, batch_size: int) -> None:
        if segment_index == self._fails_at:
            raise PeerLost("node 1", "connection reset")
        self._journal.step(f"sync {segment_index} of {batch_size}", 1.0)


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(monkeypatch)


def segments(journal: Journal) -> list[CompiledSegment | None]:
    return [Whole(journal, "embedding", 2.0), None, Profiled(journal, "attention", 4.0)]


def test_every_segment_computes_then_syncs(journal: Journal) -> None:
    executor = Executor(segments(journal), Syncs(journal))
    executor.forward(3)
    assert journal.steps == [
        "embedding of 3",
        "sync 0 of 3",
        "sync 1 of 3",
        "attention of 3",
        "sync 2 of 3",
    ]
    assert (executor.op_seconds, executor.sync_seconds) == (6.0, 3.0)


def test_times_are_those_of_the_last_forward(journal: Journal) -> None:
    executor = Executor([Whole(journal, "head", 2.0)], Syncs(journal))
    assert (executor.op_seconds, executor.sync_seconds) == (0.0, 0.0)
    for _ in range(3):
        executor.forward(1)
    assert (executor.op_seconds, executor.sync_seconds) == (2.0, 1.0)


def test_a_profile_does_the_same_and_tells_ops_apart_where_it_can(journal: Journal) -> None:
    executor = Executor(segments(journal), Syncs(journal))
    times = executor.profile(3)
    assert journal.steps == [
        "embedding of 3", "sync 0 of 3", "sync 1 of 3", "attention of 3, profiled", "sync 2 of 3"
    ]  # fmt: skip
    assert times == [SegmentTimes((2.0,), 1.0), SegmentTimes((), 1.0), SegmentTimes((1.0, 3.0), 1.0)]
    assert (executor.op_seconds, executor.sync_seconds) == (6.0, 3.0)


@pytest.mark.parametrize("run", [Executor.forward, Executor.profile])
def test_a_lost_peer_ends_the_forward_where_it_is(
    journal: Journal, run: Callable[[Executor, int], object]
) -> None:
    executor = Executor(segments(journal), Syncs(journal, fails_at=1))
    with pytest.raises(PeerLost, match="node 1: connection reset"):
        run(executor, 3)
    assert journal.steps == ["embedding of 3", "sync 0 of 3"]


def test_nothing_is_synced_that_could_not_be_computed(journal: Journal) -> None:
    class Failing(Whole):
        def forward(self, batch_size: int) -> None:
            raise KernelDataError("ROPE", "a position", 9, 8)

    executor = Executor([Failing(journal, "rope", 0.0)], Syncs(journal))
    with pytest.raises(KernelDataError, match=r"expected a position in 0\.\.7, got 9"):
        executor.forward(1)
    assert journal.steps == []
