"""Workers that are not there yet are waited for; of those that go silently the root says what it knows."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Ack, AckKind
from dllama_proto.messages import NetConfig, NodeConfig, Refusal
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost, PeerRefused
from dllama_worker.node.channel import Channel
from dllama_worker.node.memory import MemoryNeed
from dllama_worker.node.transport import Link
from dllama_worker.report import Report
from dllama_worker.root import streaming
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.dial import addresses_of, dial_all
from dllama_worker.root.lost_worker import hint
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session
from tests.helpers.processes import WorkerProcess
from tests.helpers.reports import Collected
from tests.helpers.serving import serving


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# Waiting ------------------------------------------------------------------------------------------------


def test_who_is_missing_is_told_once() -> None:
    report = Collected()
    missing = Endpoint("127.0.0.1", _free_port())
    with serving(1) as [there], closing(Cluster([missing, there], patience=0.4, report=report)) as cluster:
        with pytest.raises(PeerLost, match="cannot be reached: Connection refused; nobody listens there"):
            cluster.connect()
        [fields] = report.of("waiting")
        assert fields == {"nodes": [1], "seconds": 0.4}
        assert f"waiting up to 0.4 s for node 1 ({missing}): Connection refused" in report.told[0][1]
        started = time.monotonic()
        with pytest.raises(PeerLost):
            cluster.connect()  # only the first time: reconnecting has a time of its own
        assert time.monotonic() - started < 0.4


def test_nobody_is_greeted_before_all_are_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        addresses = [Endpoint(*first.getsockname()), Endpoint("127.0.0.1", _free_port())]
        with closing(Cluster(addresses)) as cluster, pytest.raises(PeerLost, match="node 2"):
            cluster.connect()
        accepted, _ = first.accept()
        with accepted:
            assert accepted.recv(1) == b""


def test_a_connection_that_is_closed_while_others_are_waited_for_is_made_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        late = Endpoint("127.0.0.1", _free_port())
        addresses = {1: Endpoint(*first.getsockname()), 2: late}
        listeners: list[socket.socket] = []

        def on_wait(missing: object) -> None:
            first.accept()[0].close()  # a worker whose patience is over
            listeners.append(socket.create_server((late.host, late.port)))

        found = dial_all(addresses, 10.0, on_wait)
        again, _ = first.accept()
        with again, listeners[0]:
            assert {node: pending.peek() for node, pending in found.items()} == {1: None, 2: None}
            for pending in found.values():
                pending.close()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["inference", "perplexity", "chat --chat-template chatml"])
def test_a_root_that_is_started_before_its_worker_waits_for_it(command: str) -> None:
    port = _free_port()
    words = [*command.split(), "--workers", f"localhost:{port}", "--wait", "60"]
    if "chat" not in command:
        words += ["--prompt", "ROMEO:"]
    if command == "inference":
        words += ["--steps", "8"]
    root = subprocess.Popen(
        [sys.executable, "-m", "dllama_worker.root", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert root.stderr is not None
    said = ""
    while "waiting" not in said:
        line = root.stderr.readline()
        assert line, said
        said += line
    assert f"waiting up to 60 s for node 1 (localhost:{port}): Connection refused" in said
    with pytest.raises(subprocess.TimeoutExpired):
        root.wait(2.0)
    worker = WorkerProcess("--port", str(port))
    said += root.communicate(timeout=60)[1]
    assert root.returncode == 0, said
    assert said.count("waiting") == 1
    assert worker.terminate() == 0


def test_names_become_addresses() -> None:
    assert addresses_of(Endpoint("127.0.0.1", 5)) == {("127.0.0.1", 5)}
    assert ("127.0.0.1", 5) in addresses_of(Endpoint("localhost", 5))
    assert addresses_of(Endpoint("no.such.host.invalid", 5)) == frozenset()


# Silent ends ----------------------------------------------------------------------------------------------


@contextmanager
def _worker(part: Callable[[Channel], None]) -> Iterator[Endpoint]:
    """A worker that says its part, then closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            link = Link(sock, "root")
            with suppress(PeerLost):
                part(Channel(link, Connection(Role.WORKER)))
            link.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint(*listener.getsockname())
        thread.join(10)


def _leaves_at_once(channel: Channel) -> None:
    channel.wait_event()


def _leaves_before_joining(channel: Channel) -> None:
    channel.wait_event()
    channel.send(Ack(AckKind.GREETING))
    channel.expect(Ack)
    channel.expect(Ack)
    channel.expect(NetConfig)


def _leaves_with_its_config(channel: Channel) -> None:
    _leaves_before_joining(channel)
    channel.send(Ack(AckKind.NET_CONFIG))
    channel.expect(Ack)
    channel.expect(NodeConfig)


def _leaves_while_it_is_loaded(channel: Channel) -> None:
    _leaves_with_its_config(channel)
    channel.send(Ack(AckKind.NODE_CONFIG))
    channel.wait_event()


def _refuses_while_it_is_loaded(channel: Channel) -> None:
    _leaves_with_its_config(channel)
    ack = channel.connection.send(Ack(AckKind.NODE_CONFIG))
    channel.link.send(bytes(ack) + bytes(channel.connection.send(Refusal("another model"))))
    while channel.link.receive(1 << 16):  # as a worker does, so that its reason arrives
        pass


def test_a_reason_that_comes_while_weights_are_sent_ends_the_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "_LOOK_INTERVAL", 0.0)
    sent: list[int] = []
    monkeypatch.setattr(Channel, "send_payload", lambda channel, data: sent.append(len(data)))
    with (
        _worker(_refuses_while_it_is_loaded) as address,
        pytest.raises(PeerRefused, match=rf"node 1 \({address}\) refuses: another model"),
        open_session(RootOptions("inference", workers=(address,)), Report()),
    ):
        pytest.fail("the worker has another model")
    assert not sent


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (
            _leaves_at_once,
            "it may be serving another root, be no worker, or have an --allow without this machine",
        ),
        (_leaves_before_joining, "each must reach the others at the addresses given to this root"),
        (
            _leaves_with_its_config,
            r"its part of the model needs 2\.9 MB \(weights 709\.6 kB\): it may lack that",
        ),
        (_leaves_while_it_is_loaded, r"its part of the model needs 2\.9 MB .* may have run out of memory"),
    ],
)
def test_of_a_worker_that_goes_silently_the_root_says_what_it_knows(
    part: Callable[[Channel], None], told: str
) -> None:
    with (
        _worker(part) as address,
        pytest.raises(PeerLost, match=rf"node 1 \({address}\): .*; .*{told}"),
        open_session(RootOptions("inference", workers=(address,)), Report()),
    ):
        pytest.fail("the worker has gone")


def test_a_worker_that_never_answers_is_no_riddle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "GREETING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as wedged:
        address = Endpoint(*wedged.getsockname())
        with (
            closing(Cluster([address])) as cluster,
            pytest.raises(
                PeerLost, match=r"nothing came in time; it does not answer the greeting.*restart it"
            ),
        ):
            cluster.connect()


def test_every_phase_of_setting_up_has_a_hint() -> None:
    need = MemoryNeed(pipes=1, buffers=2, weights=3)
    said = {phase for phase in Phase if hint(phase, need)}
    assert said == set(Phase) - {Phase.IDLE, Phase.SLICES, Phase.CLOSED, Phase.REFUSED, Phase.BROKEN}
    assert hint(Phase.WEIGHTS, None) == ""
