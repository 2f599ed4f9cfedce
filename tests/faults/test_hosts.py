"""Two hosts with a cable between them: the root's is unplugged at every point, or the cable is bad."""

from __future__ import annotations

import os
import time
from ast import literal_eval
from collections.abc import Iterator

import pytest

from tests.faults.hosts import (
    TwoHosts,
    end_of_session,
    generate,
    namespaces_missing,
    puppet,
    resident_bytes,
)
from tests.faults.puppet import POINTS
from tests.helpers.processes import WorkerProcess

_MISSING = namespaces_missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
]

ALL = os.environ.get("DLLAMA_FAULTS") == "all"
SPARE_BYTES = 20_000_000


class Host:
    """A worker on a host of its own, with short patience."""

    def __init__(self) -> None:
        self.hosts = TwoHosts()
        self.root = self.hosts.on_root()
        self.worker = WorkerProcess(
            "--host", TwoHosts.WORKER, "--allow", "10.77.0.0/24", "--handshake-timeout", "1",
            "--sync-timeout", "1", "--keepalive", "1", prefix=self.hosts.on_worker(),
        )  # fmt: skip
        self.addresses = [f"{TwoHosts.WORKER}:{self.worker.port}"]
        self.expected = generate(self.addresses, self.root)
        assert generate(self.addresses, self.root) == self.expected
        self.before = resident_bytes(self.worker.process.pid)

    def check_recovered(self) -> None:
        """The cable is good again: the same process serves, with no more memory than before."""
        assert resident_bytes(self.worker.process.pid) - self.before < SPARE_BYTES
        self.worker.drain()
        started = time.monotonic()
        assert generate(self.addresses, self.root) == self.expected
        assert end_of_session(self.worker, 2.0)["reason"] == "the root stopped"
        assert time.monotonic() - started < 10


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    yield host
    assert host.worker.terminate() == 0
    host.hosts.close()


@pytest.mark.parametrize("point", POINTS if ALL else ("weights", "decode", "idle"))
def test_the_roots_host_is_unplugged(host: Host, point: str) -> None:
    host.worker.drain()
    with puppet(point, host.addresses, host.root):
        host.hosts.cable.loss = 1.0
        # A second of silence; on an idle link the kernel asks for a second, and waits for another.
        entry = end_of_session(host.worker, 4.0)
    host.hosts.cable.loss = 0.0
    assert any(word in entry["message"] for word in ("said nothing", "in time", "stalled", "timed out"))
    host.check_recovered()


@pytest.mark.parametrize(("delay", "jitter", "loss"), [(0.005, 0.002, 0.01), (0.02, 0.0, 0.0)])
def test_a_bad_cable_only_takes_longer(host: Host, delay: float, jitter: float, loss: float) -> None:
    host.worker.drain()
    cable = host.hosts.cable
    cable.delay, cable.jitter, cable.loss = delay, jitter, loss
    with puppet("weights", host.addresses, host.root) as root:
        text = root.text()
    assert cable.n_lost > 0 or not loss
    cable.delay = cable.jitter = cable.loss = 0.0
    assert host.expected.startswith(literal_eval(text))
    assert end_of_session(host.worker, 2.0)["reason"] == "the root stopped"
