"""Joining the mesh over real sockets: who dials, who is recognised, who is rejected."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from dllama_proto.messages import Greeting, Peer
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Connected, Link
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener, Network
from dllama_worker.worker.mesh import join_mesh
from dllama_worker.worker.resolver import Resolver
from dllama_worker.worker.wakeup import Wakeup
from tests.helpers.reports import Collected


class Joined:
    """A node that joins: its listener, then its links by node, every link it made, whom it rejected."""

    def __init__(self, allow: tuple[Network, ...] = ()) -> None:
        self.report = Collected()
        self.listener = Listener("127.0.0.1", 0, allow, self.report)
        self.address = self.listener.listen()
        self.links: dict[int, Link] = {}
        self.kept: list[Link] = []
        self._stop = Wakeup()
        self.watch = LinkWatch(self._stop)

    @property
    def rejected(self) -> list[tuple[str, str]]:
        return [
            (fields["address"].rpartition(":")[0], fields["reason"])
            for fields in self.report.of("turned_away")
        ]

    def join(self, greeting: Greeting, timeout: float = 10.0) -> None:
        self.links, self.candidates = join_mesh(
            greeting, self.listener, self.watch, Resolver(), timeout, self._keep
        )

    def _keep(self, connection: Connected, name: str) -> Link:
        self.kept.append(Link(connection, name))
        return self.kept[-1]

    def close(self) -> None:
        for link in self.kept:
            link.close()
        self.listener.close()
        self._stop.close()


@pytest.fixture
def joined() -> Iterator[Joined]:
    node = Joined()
    yield node
    node.close()


def dial(node: Joined, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(node.address, timeout=10, source_address=(source, 0))


def test_a_worker_dials_those_after_it_and_accepts_those_before_it(joined: Joined) -> None:
    with ExitStack() as stack:
        after = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = after.getsockname()[1]
        before = stack.enter_context(dial(joined))
        joined.join(Greeting(3, 1, (Peer("127.0.0.1", 1), Peer("127.0.0.1", port))))
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


def test_peers_with_addresses_of_their_own_are_told_apart_whatever_order_they_come_in(
    joined: Joined,
) -> None:
    peers = (Peer("127.0.0.2", 1), Peer("127.0.0.3", 1), Peer("127.0.0.4", 1))
    with ExitStack() as stack:
        dialled = {node: stack.enter_context(dial(joined, f"127.0.0.{node + 1}")) for node in (3, 1, 2)}
        joined.join(Greeting(4, 3, peers))
        for node, sock in dialled.items():
            sock.sendall(b"%d" % node)
            assert joined.links[node].receive(10) == b"%d" % node


def test_strangers_that_say_something_or_hang_up_are_rejected(joined: Joined) -> None:
    with ExitStack() as stack:
        dial(joined).close()
        speaker = stack.enter_context(dial(joined))
        speaker.sendall(b"GET / HTTP/1.1\r\n\r\n")
        peer = stack.enter_context(dial(joined))
        joined.join(Greeting(2, 1, (Peer("127.0.0.1", 1),)))
        assert len(joined.rejected) == 2
        peer.sendall(b"peer")
        assert joined.links[1].receive(10) == b"peer"


def test_a_stranger_from_elsewhere_is_not_taken_for_a_peer(joined: Joined) -> None:
    with dial(joined, "127.0.0.9"), dial(joined, "127.0.0.2") as peer:
        joined.join(Greeting(2, 1, (Peer("127.0.0.2", 1),)))
        assert joined.rejected == [("127.0.0.9", "not in the root's list of workers")]
        peer.sendall(b"peer")
        assert joined.links[1].receive(10) == b"peer"


def test_peers_behind_address_translation_are_taken_in_order(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "UNLISTED", 0.05)
    with dial(joined, "127.0.0.8") as first, dial(joined, "127.0.0.9") as second:
        joined.join(Greeting(3, 2, (Peer("192.0.2.1", 1), Peer("192.0.2.2", 1))))
        first.sendall(b"first")
        second.sendall(b"second")
        assert joined.links[1].receive(10) == b"first"
        assert joined.links[2].receive(10) == b"second"


def test_a_peer_that_never_comes_is_named(joined: Joined) -> None:
    with pytest.raises(PeerLost, match=r"node 1 \(127\.0\.0\.1:7\): did not connect to us in time"):
        joined.join(Greeting(2, 1, (Peer("127.0.0.1", 7),)), timeout=0.1)


def test_a_peer_that_cannot_be_dialled_is_named(joined: Joined) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(PeerLost, match=rf"node 2 \(127\.0\.0\.1:{port}\), .*Connection refused"):
        joined.join(Greeting(2, 0, (Peer("127.0.0.1", port),)))


def test_two_workers_join_each_other() -> None:
    sides = [Joined(), Joined()]
    greetings = [Greeting(2, i, (Peer("127.0.0.1", sides[1 - i].address[1]),)) for i in (0, 1)]
    threads = [
        threading.Thread(target=side.join, args=(greeting,))
        for side, greeting in zip(sides, greetings, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    sides[0].links[2].send(b"hello")
    assert sides[1].links[1].receive(10) == b"hello"
    for side in sides:
        side.close()


def test_a_root_that_hangs_up_while_peers_are_awaited_is_noticed_at_once(joined: Joined) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    root = Link(near, "the root")
    joined.watch.add(root)
    far.close()
    with pytest.raises(PeerLost, match="the root: closed the connection"):
        joined.join(Greeting(2, 1, (Peer("127.0.0.1", 1),)), timeout=60)
    root.close()


def test_who_is_not_allowed_is_neither_accepted_nor_dialled() -> None:
    node = Joined(allow=(ip_network("127.0.0.2"),))
    with dial(node, "127.0.0.9"), dial(node, "127.0.0.2") as peer:
        node.join(Greeting(2, 1, (Peer("127.0.0.2", 1),)))
        assert node.rejected == [("127.0.0.9", "not in --allow")]
        peer.sendall(b"peer")
        assert node.links[1].receive(10) == b"peer"
    with pytest.raises(PeerLost, match=r"127\.0\.0\.9 is not in --allow"):
        node.join(Greeting(2, 0, (Peer("127.0.0.9", 1),)))
    node.close()
