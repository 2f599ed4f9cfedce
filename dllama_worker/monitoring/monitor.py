"""What a worker has done and is doing, in numbers: counted by the worker's thread, read by any other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.node.memory import MemoryNeed
from dllama_worker.node.profile import ForwardProfile, ProfileSchedule, stage_of
from dllama_worker.node.transport import Link

__all__ = ["Monitor", "Snapshot", "UNPROFILED", "WorkerPhase"]

#: In the place of an op code or a sync type: seconds of a stage of which no forward was profiled. Not a total.
UNPROFILED = "UNPROFILED"


class WorkerPhase(Enum):
    """What a worker is doing, in the order of a session."""

    #: Waiting for a root.
    LISTENING = "listening"
    #: Shaking hands with a root, joining the other workers of its cluster.
    JOINING = "joining"
    #: Reading and binding the configuration.
    CONFIGURING = "configuring"
    #: Taking weights.
    LOADING = "loading"
    #: Evaluating, or waiting for the root to ask for it.
    SERVING = "serving"
    #: Asked to end: after the forward that runs, it does.
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything counted since the worker was made, and the memory and phase of this moment.

    ``op_seconds`` is by (op code, stage), ``sync_seconds`` by (sync type, stage), link bytes by the node at the
    other end; ``last_forward`` is a Unix time, 0 before the first.
    """

    phase: WorkerPhase
    sessions: int
    errors: Mapping[str, int]
    tokens: Mapping[str, int]
    forwards: Mapping[str, int]
    op_seconds: Mapping[tuple[str, str], float]
    sync_seconds: Mapping[tuple[str, str], float]
    sent_bytes: Mapping[int, int]
    received_bytes: Mapping[int, int]
    memory: MemoryNeed | None
    last_forward: float


@dataclass(slots=True)
class _Stage:
    """Forwards of one stage; those in ``waiting`` are not divided among op codes and sync types yet."""

    divided: ForwardTimes = field(default_factory=ForwardTimes)
    waiting: ForwardTimes = field(default_factory=ForwardTimes)
    profile: ForwardProfile = field(default_factory=lambda: ForwardProfile({}, {}))


class Monitor:
    """Takes note of what a worker does. With ``profiled``, also of where each forward's time goes."""

    def __init__(self, *, profiled: bool = False) -> None:
        self._lock = threading.Lock()
        self._sampler = ProfileSchedule() if profiled else None
        self._phase = WorkerPhase.LISTENING
        self._draining = False
        self._sessions = 0
        self._errors: Counter[str] = Counter()
        self._stages = {"prefill": _Stage(), "decode": _Stage()}
        self._op_seconds: dict[tuple[str, str], float] = {}
        self._sync_seconds: dict[tuple[str, str], float] = {}
        self._links: Mapping[int, Link] = {}
        self._sent_bytes: Counter[int] = Counter()
        self._received_bytes: Counter[int] = Counter()
        self._memory: MemoryNeed | None = None
        self._last_forward = 0.0

    @property
    def phase(self) -> WorkerPhase:
        """What the worker is doing."""
        return WorkerPhase.DRAINING if self._draining else self._phase

    def join(self) -> None:
        """A root has greeted."""
        self._phase = WorkerPhase.JOINING

    def begin_session(self, links: Mapping[int, Link]) -> None:
        """A root is there and the mesh is complete; ``links`` are by node index."""
        with self._lock:
            self._sessions += 1
            self._links = dict(links)
            self._phase = WorkerPhase.CONFIGURING

    def load(self, need: MemoryNeed) -> None:
        """The configuration is accepted, and this is what it takes."""
        with self._lock:
            self._memory = need
            self._phase = WorkerPhase.LOADING

    def serve(self) -> None:
        """The weights are complete."""
        self._phase = WorkerPhase.SERVING

    def drain(self) -> None:
        """The worker was asked to end."""
        self._draining = True

    def wants_profile(self, batch_size: int) -> bool:
        """Tell whether the forward that begins is to be profiled."""
        return self._sampler is not None and self._sampler.is_due(stage_of(batch_size))

    def add_forward(
        self, batch_size: int, op_seconds: float, sync_seconds: float, profile: ForwardProfile | None
    ) -> None:
        """Count a forward; ``profile`` where it was asked for."""
        name = stage_of(batch_size)
        with self._lock:
            stage = self._stages[name]
            if profile is not None:
                self._divide(name, stage)
                stage.profile = profile
            stage.waiting.add(batch_size, op_seconds, sync_seconds)
            self._last_forward = time.time()

    def end_session(self) -> None:
        """The links are about to close, the memory to be given back."""
        with self._lock:
            self._sent_bytes, self._received_bytes = self._bytes()
            self._links = {}
            self._memory = None
            self._phase = WorkerPhase.LISTENING

    def add_error(self, kind: str) -> None:
        """A session ended by an error of this kind: the name of its type."""
        with self._lock:
            self._errors[kind] += 1

    def snapshot(self) -> Snapshot:
        """Return everything as it is now."""
        with self._lock:
            for name, stage in self._stages.items():
                self._divide(name, stage)
            sent, received = self._bytes()
            return Snapshot(
                phase=self.phase,
                sessions=self._sessions,
                errors=dict(self._errors),
                tokens={name: stage.divided.rows for name, stage in self._stages.items()},
                forwards={name: stage.divided.forwards for name, stage in self._stages.items()},
                op_seconds=dict(self._op_seconds),
                sync_seconds=dict(self._sync_seconds),
                sent_bytes=sent,
                received_bytes=received,
                memory=self._memory,
                last_forward=self._last_forward,
            )

    def _bytes(self) -> tuple[Counter[int], Counter[int]]:
        """Return the bytes of the sessions that ended and of the one that runs."""
        sent, received = self._sent_bytes.copy(), self._received_bytes.copy()
        for node, link in self._links.items():
            sent[node] += link.sent_bytes
            received[node] += link.received_bytes
        return sent, received

    def _divide(self, name: str, stage: _Stage) -> None:
        """Give the seconds that wait to op codes and sync types, as the last profile divides them."""
        if not stage.waiting.forwards:
            return
        _spread(self._op_seconds, name, stage.waiting.op_seconds, stage.profile.ops)
        _spread(self._sync_seconds, name, stage.waiting.sync_seconds, stage.profile.syncs)
        stage.divided = ForwardTimes.total(stage.divided, stage.waiting)
        stage.waiting = ForwardTimes()


def _spread(
    sums: dict[tuple[str, str], float], stage: str, seconds: float, shares: Mapping[str, float]
) -> None:
    """Add ``seconds`` by shares; without any, all of it under a name that says so. No seconds make no entry."""
    if not seconds:
        return
    for name, share in (shares or {UNPROFILED: 1.0}).items():
        sums[name, stage] = sums.get((name, stage), 0.0) + seconds * share
