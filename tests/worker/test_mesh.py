"""Joining the mesh over real sockets: who dials, who is recognised, who is turned away."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dllama_proto.messages import Greeting, Peer
from dllama_worker import mesh
from dllama_worker.errors import PeerLost
from dllama_worker.mesh import join_mesh
from dllama_worker.transport import Link


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


class Joined:
    """What came of joining: links by node, everything kept, everybody turned away."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.kept: list[Link] = []
        self.turned_away: list[tuple[str, str]] = []

    def join(self, greeting: Greeting, listener: socket.socket, timeout: float = 10.0) -> None:
        self.links = join_mesh(
            greeting,
            listener,
            timeout,
            lambda address, reason: self.turned_away.append((address, reason)),
            self.kept.append,
        )

    def close(self) -> None:
        for link in self.kept:
            link.close()


def dial(listener: socket.socket, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=10, source_address=(source, 0))


def test_a_worker_dials_those_after_it_and_accepts_those_before_it(listener: socket.socket) -> None:
    with ExitStack() as stack:
        after = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = after.getsockname()[1]
        before = stack.enter_context(dial(listener))
        joined = Joined()
        joined.join(Greeting(3, 1, (Peer("127.0.0.1", 1), Peer("127.0.0.1", port))), listener)
        dialled, _ = after.accept()
        stack.enter_context(dialled)
        assert set(joined.links) == {1, 3}
        before.sendall(b"one")
        dialled.sendall(b"three")
        assert joined.links[1].receive(10) == b"one"
        assert joined.links[3].receive(10) == b"three"
        assert sorted(link.name for link in joined.kept) == [
            "node 1 (127.0.0.1:1)",
            f"node 3 (127.0.0.1:{port})",
        ]
        joined.close()


def test_peers_with_addresses_of_their_own_are_told_apart_whatever_order_they_come_in(
    listener: socket.socket,
) -> None:
    peers = (Peer("127.0.0.2", 1), Peer("127.0.0.3", 1), Peer("127.0.0.4", 1))
    with ExitStack() as stack:
        callers = {node: stack.enter_context(dial(listener, f"127.0.0.{node + 1}")) for node in (3, 1, 2)}
        joined = Joined()
        joined.join(Greeting(4, 3, peers), listener)
        for node, caller in callers.items():
            caller.sendall(b"%d" % node)
            assert joined.links[node].receive(10) == b"%d" % node
        joined.close()


def test_strangers_who_speak_or_hang_up_are_turned_away(listener: socket.socket) -> None:
    with ExitStack() as stack:
        dial(listener).close()
        speaker = stack.enter_context(dial(listener))
        speaker.sendall(b"GET / HTTP/1.1\r\n\r\n")
        peer = stack.enter_context(dial(listener))
        joined = Joined()
        joined.join(Greeting(2, 1, (Peer("127.0.0.1", 1),)), listener)
        assert len(joined.turned_away) == 2
        peer.sendall(b"peer")
        assert joined.links[1].receive(10) == b"peer"
        joined.close()


def test_a_stranger_from_elsewhere_does_not_take_a_peers_place(listener: socket.socket) -> None:
    with dial(listener, "127.0.0.9"), dial(listener, "127.0.0.2") as peer:
        joined = Joined()
        joined.join(Greeting(2, 1, (Peer("127.0.0.2", 1),)), listener)
        assert joined.turned_away == [("127.0.0.9", "not in the root's list of workers")]
        peer.sendall(b"peer")
        assert joined.links[1].receive(10) == b"peer"
        joined.close()


def test_peers_behind_address_translation_are_taken_in_order(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "_UNLISTED_GRACE", 0.05)
    with dial(listener, "127.0.0.8") as first, dial(listener, "127.0.0.9") as second:
        joined = Joined()
        joined.join(Greeting(3, 2, (Peer("192.0.2.1", 1), Peer("192.0.2.2", 1))), listener)
        first.sendall(b"first")
        second.sendall(b"second")
        assert joined.links[1].receive(10) == b"first"
        assert joined.links[2].receive(10) == b"second"
        joined.close()


def test_a_peer_that_never_comes_is_named(listener: socket.socket) -> None:
    with pytest.raises(PeerLost, match=r"node 1 \(127\.0\.0\.1:7\): did not connect to us in time"):
        Joined().join(Greeting(2, 1, (Peer("127.0.0.1", 7),)), listener, timeout=0.1)


def test_a_peer_that_cannot_be_dialled_is_named(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(PeerLost, match=rf"node 2 \(127\.0\.0\.1:{port}\), .*Connection refused"):
        Joined().join(Greeting(2, 0, (Peer("127.0.0.1", port),)), listener)


def test_two_workers_join_each_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [one.getsockname()[1], two.getsockname()[1]]
        sides = [Joined(), Joined()]
        threads = [
            threading.Thread(
                target=side.join, args=(Greeting(2, i, (Peer("127.0.0.1", ports[1 - i]),)), server)
            )
            for i, (side, server) in enumerate(zip(sides, (one, two), strict=True))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
        sides[0].links[2].send(b"hello")
        assert sides[1].links[1].receive(10) == b"hello"
        for side in sides:
            side.close()
