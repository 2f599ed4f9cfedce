"""Who greets as a root is taken; whoever else has connected is rejected, and keeps nobody out."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Any

import pytest

from dllama_proto.connection import Connection, Role
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting, Peer
from dllama_worker.worker import handshake as handshake_module
from dllama_worker.worker.handshake import PendingHandshake, accept_root
from dllama_worker.worker.link_watch import Stopped
from dllama_worker.worker.listener import Listener, Network
from dllama_worker.worker.wakeup import Wakeup
from tests.helpers.reports import Collected
from tests.helpers.sockets import reset

GREETING = Greeting(2, 0, (Peer("10.0.0.3", 9990),))
SAID = bytes(Connection(Role.ROOT).send(GREETING))


class Rejections(Collected):
    """Does something, or sets the wakeup, once so many connections have been rejected."""

    def __init__(self, wakeup: Wakeup) -> None:
        super().__init__()
        self._wakeup = wakeup
        self._then: dict[int, Callable[[], None]] = {}

    def stop_after(self, number: int) -> None:
        self.after(number, self._wakeup.set)

    def after(self, number: int, then: Callable[[], None]) -> None:
        self._then[number] = then

    def warning(self, event: str, message: str, **fields: Any) -> None:
        super().warning(event, message, **fields)
        self._then.get(len(self.reasons), lambda: None)()

    @property
    def reasons(self) -> list[str]:
        return [fields["reason"] for fields in self.of("turned_away")]


class Worker:
    """A listener and what was logged; connections are made before it accepts, so their order is known."""

    def __init__(self, stack: ExitStack, allow: Sequence[Network] = ()) -> None:
        self._stack = stack
        self.wakeup = Wakeup()
        stack.callback(self.wakeup.close)
        self.rejections = Rejections(self.wakeup)
        self.listener = Listener("127.0.0.1", 0, allow, self.rejections)
        self.address = self.listener.listen()
        stack.callback(self.listener.close)

    def dial(self, said: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        sock = self._stack.enter_context(
            socket.create_connection(self.address, timeout=30, source_address=(source, 0))
        )
        sock.sendall(said)
        return sock

    def accept_root(self, seconds: float = 30.0, limits: Limits | None = None) -> PendingHandshake:
        handshake, greeting = accept_root(self.listener, self.wakeup, seconds, limits or Limits())
        self._stack.callback(handshake.pending.close)
        assert greeting == GREETING
        return handshake


@pytest.fixture
def worker() -> Iterator[Worker]:
    with ExitStack() as stack:
        yield Worker(stack)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_who_greets_is_the_root(worker: Worker) -> None:
    root = worker.dial(SAID + b"more")
    handshake = worker.accept_root()
    assert handshake.pending.address == "{}:{}".format(*root.getsockname())
    assert handshake.pending.received_bytes == len(SAID)
    assert handshake.pending.receive_now(10) == b"more"  # nothing was read beyond the greeting
    assert worker.rejections.reasons == []


def test_a_greeting_may_come_byte_by_byte(worker: Worker) -> None:
    root = worker.dial()
    found: list[PendingHandshake] = []
    accepting = threading.Thread(target=lambda: found.append(worker.accept_root()))
    accepting.start()
    for byte in SAID:
        root.sendall(bytes([byte]))
    accepting.join(30)
    assert [handshake.pending.received_bytes for handshake in found] == [len(SAID)]


def test_what_others_say_keeps_no_root_out(worker: Worker) -> None:
    browser = worker.dial(b"GET / HTTP/1.1\r\n\r\n")
    worker.dial().close()
    worker.dial(SAID[:-1]).shutdown(socket.SHUT_WR)
    reset(worker.dial(b"x"))
    silent = worker.dial()
    worker.dial(SAID)
    worker.accept_root()
    assert is_closed(browser)
    assert is_closed(silent)
    # Each is rejected as soon as its bytes are read: in which order is left to the system.
    assert Counter(reason.partition(" at byte")[0] for reason in worker.rejections.reasons) == {
        "no root: Greeting.n_sockets": 1,
        "no root: closed the connection before its Greeting": 1,
        "no root: Greeting.peers[0]": 1,
        "no root: connection reset": 1,
        "another root came first": 1,
    }


def test_of_two_roots_the_first_is_taken(worker: Worker) -> None:
    first, second = worker.dial(SAID), worker.dial(SAID)
    handshake = worker.accept_root()
    assert handshake.pending.port == first.getsockname()[1]
    assert worker.rejections.reasons == ["another root came first"]
    assert is_closed(second)


def test_who_does_not_greet_in_time_is_rejected(worker: Worker) -> None:
    silent, dripping = worker.dial(), worker.dial(SAID[:3])
    worker.rejections.stop_after(2)
    with pytest.raises(Stopped):
        worker.accept_root(seconds=0.02)
    assert worker.rejections.reasons == ["no greeting within 0.02 s"] * 2
    assert is_closed(silent)
    assert is_closed(dripping)


def test_the_oldest_of_too_many_makes_room(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_module, "_MAX_HANDSHAKES", 2)
    silent = [worker.dial() for _ in range(3)]
    worker.dial(SAID)
    worker.accept_root()
    assert worker.rejections.reasons == [
        "2 others wait who have not greeted",
        "2 others wait who have not greeted",
        "another root came first",
    ]
    assert all(is_closed(sock) for sock in silent)


def test_a_crowd_of_one_address_keeps_no_root_of_another_out(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake_module, "_MAX_HANDSHAKES", 2)
    root = worker.dial(SAID[:1], source="127.0.0.2")
    crowd = [worker.dial(SAID[:1]) for _ in range(4)]
    worker.rejections.after(3, lambda: root.sendall(SAID[1:]))
    worker.rejections.stop_after(5)  # if the root was among them
    assert worker.accept_root(seconds=5.0).pending.host == "127.0.0.2"
    assert all(map(is_closed, crowd))


def test_who_is_not_allowed_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake_module, "_MAX_HANDSHAKES", 1)
    with ExitStack() as stack:
        worker = Worker(stack, allow=(ip_network("127.0.0.2"),))
        root = worker.dial(SAID[:1], source="127.0.0.2")
        crowd = [worker.dial(SAID[:1]) for _ in range(3)]
        worker.rejections.after(3, lambda: root.sendall(SAID[1:]))
        worker.rejections.stop_after(4)  # if the root was among them
        assert worker.accept_root(seconds=5.0).pending.host == "127.0.0.2"
        assert worker.rejections.reasons == ["not in --allow"] * 3
        assert all(map(is_closed, crowd))


def test_a_worker_that_stops_rejects_everybody(worker: Worker) -> None:
    silent = worker.dial()
    worker.dial(b"GET / HTTP/1.1\r\n\r\n")
    worker.rejections.stop_after(1)
    with pytest.raises(Stopped):
        worker.accept_root()
    assert worker.rejections.reasons[1:] == ["the worker stops"]
    assert is_closed(silent)


def test_the_limits_hold_for_what_a_greeting_says(worker: Worker) -> None:
    worker.dial(SAID)
    worker.rejections.stop_after(1)
    with pytest.raises(Stopped):
        worker.accept_root(limits=Limits(n_sockets=1))
    [reason] = worker.rejections.reasons
    assert "Greeting.n_sockets" in reason
