"""Hosts that a root names: any bytes, and a resolver that does not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.messages import Peer
from dllama_worker.errors import MachineError, PeerLost
from dllama_worker.node.transport import Link
from dllama_worker.worker import resolver as resolver_module
from dllama_worker.worker.link_watch import LinkWatch, Stopped
from dllama_worker.worker.resolver import Lookup, Resolver

_NAMES = {b"a.example": "192.0.2.1", b"b.example": "192.0.2.2"}


class System:
    """Looks names up in a table, without a network; those that begin with ``slow`` only once ``over`` is set."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked: list[str] = []
        self.resolver = Resolver(self._getaddrinfo)

    def _getaddrinfo(self, host: bytes, port: int, *, type: int, flags: int) -> Any:
        if not flags:
            self.asked.append(host.decode("utf-8", "replace"))
            if host.startswith(b"slow"):
                self.over.wait(60)
            host = _NAMES.get(host, host.decode("latin-1")).encode("latin-1")
        return socket.getaddrinfo(host, port, type=type, flags=socket.AI_NUMERICHOST)


@pytest.fixture
def system() -> Iterator[System]:
    made = System()
    yield made
    made.over.set()


@pytest.fixture
def wake() -> Iterator[socket.socket]:
    """What makes the watch's wait end; the watch itself is ``LinkWatch(wake)``."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def look_up_one(system: System, host: str) -> Lookup:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        (lookup,) = system.resolver.look_up([Peer(host, 1)], LinkWatch(ours), soon())
    return lookup


def test_addresses_need_no_resolver(system: System, wake: socket.socket) -> None:
    found = system.resolver.look_up([Peer("127.0.0.1", 7), Peer("::1", 8)], LinkWatch(wake), soon())
    assert [[address.host for address in lookup.addresses] for lookup in found] == [["127.0.0.1"], ["::1"]]
    assert found[0].addresses[0].sockaddr == ("127.0.0.1", 7)
    assert system.asked == []


def test_names_are_looked_up_in_order(system: System, wake: socket.socket) -> None:
    peers = [Peer("a.example", 1), Peer("192.0.2.9", 1), Peer("b.example", 1)]
    found = system.resolver.look_up(peers, LinkWatch(wake), soon())
    assert [lookup.addresses[0].host for lookup in found] == ["192.0.2.1", "192.0.2.9", "192.0.2.2"]
    assert system.asked == ["a.example", "b.example"]


def test_the_system_is_asked_unless_told_otherwise(wake: socket.socket) -> None:
    (lookup,) = Resolver().look_up([Peer("localhost", 1)], LinkWatch(wake), soon())
    assert {address.host for address in lookup.addresses} <= {"127.0.0.1", "::1"}
    assert lookup.addresses


def test_a_name_without_an_answer_costs_no_more_than_the_time_there_is(
    system: System, wake: socket.socket
) -> None:
    peers = [Peer("127.0.0.1", 1), Peer("slow", 1), Peer("a.example", 1)]
    found = system.resolver.look_up(peers, LinkWatch(wake), soon(0.05))
    assert found[0].error is None
    assert [type(lookup.error) for lookup in found[1:]] == [TimeoutError, TimeoutError]
    assert system.asked == ["slow"]


def test_a_root_that_leaves_is_noticed_while_a_name_has_no_answer(
    system: System, wake: socket.socket
) -> None:
    watch = LinkWatch(wake)
    with socket.create_server(("127.0.0.1", 0)) as server:
        root = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    link = Link(accepted, "the root")
    watch.add(link)
    root.close()
    with pytest.raises(PeerLost, match="the root: closed the connection"):
        system.resolver.look_up([Peer("slow", 1)], watch, soon())
    watch.clear()
    link.close()


def test_a_worker_that_is_to_stop_does_not_wait_for_a_name(system: System) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"\0")
        with pytest.raises(Stopped):
            system.resolver.look_up([Peer("slow", 1)], LinkWatch(ours), soon())


def test_names_without_an_answer_do_not_pile_up(
    system: System, wake: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "_MAX_ABANDONED", 2)
    watch = LinkWatch(wake)
    for _ in range(2):
        system.resolver.look_up([Peer("slow", 1)], watch, soon(0.01))
    with pytest.raises(MachineError, match="resolver has not answered"):
        system.resolver.look_up([Peer("slow", 1)], watch, soon())
    assert look_up_one(system, "127.0.0.1").error is None


@given(st.binary(max_size=300))
def test_any_host_is_an_address_or_none(host: bytes) -> None:
    lookup = look_up_one(System(), host.decode("utf-8", "surrogateescape"))
    assert bool(lookup.addresses) == (lookup.error is None)


@pytest.mark.parametrize("host", ["a..b", "...", "x" * 200, "\udcff.example", "ü.example", "a b"])
def test_names_that_cannot_be_are_unknown_not_a_bug(host: str, system: System) -> None:
    assert isinstance(look_up_one(system, host).error, socket.gaierror)
