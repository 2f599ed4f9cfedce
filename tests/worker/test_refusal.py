"""A worker says why it cannot go on, where an ack would come next, and never waits for who does not listen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from dllama_proto.connection import Connection, Role
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Ack, AckKind
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_proto.schemas.refusal import REFUSAL_BYTES
from dllama_worker import Worker, timeouts
from dllama_worker.errors import PeerLost, PeerRefused
from dllama_worker.node.channel import Channel
from dllama_worker.node.transport import Link
from dllama_worker.report import Report
from dllama_worker.root.cluster import Cluster
from dllama_worker.root.options import RootOptions
from dllama_worker.root.session import open_session, plan_session
from dllama_worker.worker import farewell
from dllama_worker.worker.farewell import Farewells, refusal
from dllama_worker.worker.options import WorkerOptions
from tests.helpers.sockets import tcp_pair

_GREETING = bytes(Connection(Role.ROOT).send(Greeting(1, 0, ())))
_ACK = bytes.fromhex("aa aa 67 01")


@contextmanager
def _serving(**options: object) -> Iterator[Endpoint]:
    worker = Worker(options=WorkerOptions(port=0, **options))  # type: ignore[arg-type]
    thread = threading.Thread(target=worker.serve_forever)
    try:
        address = Endpoint(*worker.listen())
        thread.start()
        yield address
    finally:
        worker.stop()
        thread.join(10)
        worker.close()


def _set_up(address: Endpoint) -> None:
    with open_session(RootOptions("inference", workers=(address,)), Report()) as session:
        session.inference.finish()


def _call(address: Endpoint) -> None:
    with closing(Cluster([address])) as cluster:
        cluster.connect()


def _greet_until_it_is_free(address: Endpoint) -> None:
    for _ in range(100):
        with suppress(PeerRefused):  # one of those before is served
            _set_up(address)
            return
    pytest.fail("it is never free")


def _read_all(sock: socket.socket) -> bytes:
    sock.settimeout(20)
    return b"".join(iter(lambda: sock.recv(4096), b""))


# The session's root ------------------------------------------------------------------------------------


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with (
        _serving(max_memory=100_000) as address,
        pytest.raises(PeerRefused, match=r"^node 1 \(127\.0\.0\.1:\d+\) refuses: .* no more than 100,000"),
    ):
        _set_up(address)


def test_wrong_bytes_are_refused_by_name() -> None:
    with _serving() as address, socket.create_connection((address.host, address.port)) as root:
        root.sendall(_GREETING + _ACK + b"\xff" * 100)
        said = _read_all(root)
    assert said.startswith(_ACK + REFUSAL_BYTES)
    assert b"Ack(NET_CONFIG_AHEAD) at byte 0: expected" in said


def test_who_has_not_greeted_is_told_nothing() -> None:
    with _serving() as address:
        for words in (b"GET / HTTP/1.1\r\n\r\n", _GREETING[:5], b"\xff" * 100):
            with socket.create_connection((address.host, address.port)) as stranger:
                stranger.sendall(words)
                with suppress(OSError):  # not all it said was read
                    stranger.shutdown(socket.SHUT_WR)
                    assert _read_all(stranger) == b""


def test_a_root_that_reads_and_closes_nothing_delays_nobody() -> None:
    """It costs the worker neither the listener nor the next session."""
    with _serving() as address:
        idle = []
        for _ in range(6):  # more than are told at the same time
            root = socket.create_connection((address.host, address.port))
            root.sendall(_GREETING + _ACK + b"\xff" * 100)
            idle.append(root)
        started = time.monotonic()
        _greet_until_it_is_free(address)
        assert time.monotonic() - started < timeouts.FAREWELL_DRAIN
        for root in idle:
            root.close()


def test_a_worker_that_ends_lets_its_root_hear_it_out() -> None:
    worker = Worker(options=WorkerOptions(port=0, max_memory=1))
    address = Endpoint(*worker.listen())

    def serve() -> None:
        worker.serve_once()
        worker.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(PeerRefused, match="no more than 1 "):
        _set_up(address)
    thread.join(10)
    assert not thread.is_alive()


def test_a_reason_reaches_a_root_that_still_sends() -> None:
    """The worker reads nothing of it any more, and closes: a reset would destroy what it said."""
    near, far = tcp_pair()
    worker = Channel(Link(near, "root"), Connection(Role.WORKER))
    root = Channel(Link(far, "node 1"), Connection(Role.ROOT))
    root.send(Greeting(1, 0, ()))
    worker.wait_event()
    root.link.send(bytes(200_000))
    farewells = Farewells()
    assert farewells.say(worker, ValueError("no"))
    root.link.send(bytes(200_000))
    with pytest.raises(PeerRefused, match="no"):
        root.expect(Ack)
    root.link.close()
    farewells.close()
    assert near.fileno() == -1


def test_nothing_is_said_where_another_node_hung_up_or_no_ack_comes_next() -> None:
    near, far = tcp_pair()
    with near, far:
        channel = Channel(Link(near, "root"), Connection(Role.WORKER))
        farewells = Farewells()
        assert not farewells.say(channel, ValueError())  # not greeted yet
        channel.connection.receive_data(_GREETING)
        channel.connection.next_event()
        assert not farewells.say(channel, PeerLost("node 2", "closed", hung_up=True))
        assert near.fileno() != -1


def test_reasons_are_one_line_of_bounded_length() -> None:
    reason = refusal("a\nb\x1b[31m\0" + "x" * 5000).reason
    assert reason.startswith(r"a\nb\x1b[31m\x00xxx")
    assert len(reason) == farewell._MAX_LENGTH
    assert len(refusal("\U0001f600" * 5000).reason.encode()) < Limits().refusal_length


# Other roots, while one is served ----------------------------------------------------------------------------


def test_another_root_is_told_that_the_worker_is_busy() -> None:
    with (
        _serving() as address,
        open_session(RootOptions("inference", workers=(address,)), Report()) as session,
    ):
        served = session.cluster.links[1]
        assert isinstance(served._sock, socket.socket)
        own = f"127.0.0.1:{served._sock.getsockname()[1]}"
        with pytest.raises(PeerRefused, match=rf"refuses: it serves another root, at {own}$"):
            _call(address)
        with socket.create_connection((address.host, address.port)) as slow:
            for at in range(len(_GREETING)):  # as C++ sends it, in parts
                slow.sendall(_GREETING[at : at + 1])
            assert _read_all(slow).startswith(REFUSAL_BYTES)
        session.inference.finish()


def test_who_does_not_greet_meanwhile_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "LATE_GREETING", 0.2)
    with (
        _serving() as address,
        open_session(RootOptions("inference", workers=(address,)), Report()) as session,
    ):
        for words in (b"", _GREETING[:7], b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((address.host, address.port)) as stranger:
                stranger.sendall(words)
                with suppress(ConnectionResetError):  # not all it said was read
                    assert _read_all(stranger) == b""
        session.inference.finish()


def test_many_that_say_nothing_keep_no_other_root_from_its_answer() -> None:
    with (
        _serving() as address,
        open_session(RootOptions("inference", workers=(address,)), Report()) as session,
    ):
        silent = [socket.create_connection((address.host, address.port)) for _ in range(40)]
        with pytest.raises(PeerRefused, match="serves another root"):
            _call(address)
        for sock in silent:
            sock.close()
        session.inference.finish()


def test_a_second_root_from_the_address_of_a_peer_is_told_as_well() -> None:
    """It may be the peer until it has said something too early."""
    with _serving() as one, _serving() as other:
        options = RootOptions("inference", workers=(one, other))
        with open_session(options, Report()) as session:
            with pytest.raises(PeerRefused, match=r"node 1 .* serves another root"):
                _call(other)  # node 2 of the session waits for a peer from this address
            session.inference.finish()


# The root ---------------------------------------------------------------------------------------------


def test_a_failed_send_looks_for_the_reason_that_came_before() -> None:
    near, far = tcp_pair()
    worker = Channel(Link(near, "root"), Connection(Role.WORKER))
    root = Channel(Link(far, "node 1"), Connection(Role.ROOT))
    root.send(Greeting(1, 0, ()))
    worker.wait_event()
    worker.send(Ack(AckKind.GREETING))
    root.expect(Ack)
    worker.send(refusal("no room"))
    worker.link.close()
    with pytest.raises(PeerRefused, match="node 1 refuses: no room"):  # noqa: PT012 # one of the sends fails
        root.send(Ack(AckKind.ROOT_READY))
        root.send(Ack(AckKind.NET_CONFIG_AHEAD))
        net = plan_session(
            RootOptions("inference", workers=(Endpoint("127.0.0.1", 9),)), Report()
        ).layout.net
        for _ in range(2):
            root.send(net)
            root.expect(Ack)
    far.close()


def test_the_root_names_who_refuses_not_who_hangs_up_for_that() -> None:
    """Node 1 sees node 2 go, and goes as well: what node 2 says counts."""
    with _serving() as good, _serving(max_memory=100_000) as small:
        for workers in ((good, small), (small, good)):
            with (
                pytest.raises(PeerRefused, match=rf"^node \d \({small}\) refuses: the configuration needs"),
                open_session(RootOptions("inference", workers=workers), Report()),
            ):
                pytest.fail("it does not fit")
