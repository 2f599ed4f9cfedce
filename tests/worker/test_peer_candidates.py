"""Strangers from a peer's address: who connects first does not matter, the first forward tells who is the peer."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest

from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link, PendingConnection
from dllama_worker.worker import peer_candidates as peer_candidates_module
from dllama_worker.worker.link_watch import LinkWatch, Stopped
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import AcceptedPeer, PeerCandidates
from dllama_worker.worker.wakeup import Wakeup
from tests.helpers.captures import load
from tests.helpers.processes import worker_process
from tests.helpers.reports import Collected
from tests.worker.replay import play, read_recording

HOST = frozenset({"127.0.0.1"})


class Accepting:
    """A node's listener, and the links of the peers that it accepted; :meth:`dial` is what others do."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.report = Collected()
        self.listener = Listener("127.0.0.1", 0, (), self.report)
        self._address = self.listener.listen()
        stack.callback(self.listener.close)
        self.stop = Wakeup()
        stack.callback(self.stop.close)
        self.silent, _ = (stack.enter_context(end) for end in socket.socketpair())
        self.watch = LinkWatch(self.stop)
        self.from_root, self.root = (stack.enter_context(end) for end in socket.socketpair())
        self.links: dict[int, Link] = {}

    def dial(self, source: str = "127.0.0.1") -> socket.socket:
        return self._stack.enter_context(
            socket.create_connection(self._address, timeout=10, source_address=(source, 0))
        )

    def accept(self) -> PendingConnection:
        pending = self.listener.accept()
        assert pending is not None
        self._stack.callback(pending.close)
        return pending

    def peers(self, *nodes: int, addresses: frozenset[str] = HOST) -> PeerCandidates:
        """Take the connections that have been made, in order, for the peers'."""
        accepted = []
        for node in nodes:
            pending = self.accept()
            link = self.links[node] = Link(pending, f"node {node}")
            self._stack.callback(link.close)
            self.watch.add(link)
            accepted.append(AcceptedPeer(node, link, pending, addresses, pending.host in addresses))
        candidates = PeerCandidates(accepted, self.listener, self.watch)
        self._stack.callback(candidates.close)
        self.watch.can_lose = candidates.release
        return candidates

    def offer(self, candidates: PeerCandidates) -> bool:
        """Accept a connection and offer it, as the session guard does."""
        return candidates.offer(self.accept())

    @property
    def reasons(self) -> list[str]:
        return [fields["reason"] for fields in self.report.of("turned_away")]


@pytest.fixture
def node() -> Iterator[Accepting]:
    with ExitStack() as stack:
        yield Accepting(stack)


def all_send(node: int) -> bool:
    return True


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_a_stranger_that_connected_first_is_not_taken_for_the_peer(node: Accepting) -> None:
    stranger = node.dial()
    candidates = node.peers(1)
    peer = node.dial()
    assert node.offer(candidates)
    peer.sendall(b"slice")
    candidates.identify_peers(all_send, 10)
    assert node.links[1].receive(10) == b"slice"
    node.links[1].send(b"ours")
    assert peer.recv(10) == b"ours"
    assert is_closed(stranger)
    assert node.reasons == ["another connection was the peer's"]


@pytest.mark.parametrize("stranger_first", [False, True])
def test_peers_of_one_host_keep_the_order_in_which_they_connected(
    node: Accepting, stranger_first: bool
) -> None:
    one, other = node.dial(), node.dial()
    stranger, first = (one, other) if stranger_first else (other, one)
    candidates = node.peers(1, 2)
    second = node.dial()
    assert node.offer(candidates)
    second.sendall(b"second")
    first.sendall(b"first")
    candidates.identify_peers(all_send, 10)
    assert node.links[1].receive(10) == b"first"
    assert node.links[2].receive(10) == b"second"
    assert is_closed(stranger)


def test_a_peer_that_has_sent_something_is_not_rejected_while_another_is_waited_for(
    node: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_candidates_module, "_MAX_AHEAD", -1.0)
    node.dial(), node.dial()
    candidates = node.peers(1, 2)
    peers = [node.dial(), node.dial()]
    assert [node.offer(candidates) for _ in peers] == [True, True]
    wait = node.watch.any_readable

    def reject_and_wait(
        connections: Iterable[PendingConnection], seconds: float
    ) -> list[PendingConnection]:
        assert not candidates.reject_early()  # as the session guard does, at any time
        peers.pop(0).sendall(b"slice")
        return wait(connections, seconds)

    monkeypatch.setattr(node.watch, "any_readable", reject_and_wait)
    candidates.identify_peers(all_send, 10)
    assert peers == []
    assert [node.links[index].receive(10) for index in (1, 2)] == [b"slice"] * 2


def test_nothing_is_waited_for_where_no_other_connection_may_be_the_peers(node: Accepting) -> None:
    peer = node.dial()
    candidates = node.peers(1)
    candidates.identify_peers(all_send, 0)  # it has said nothing, and need not yet
    peer.sendall(b"slice")
    assert node.links[1].receive(10) == b"slice"
    node.dial()
    assert not node.offer(candidates)


def test_a_peer_that_sends_nothing_in_a_forward_stays_the_peer(node: Accepting) -> None:
    peer = node.dial()
    candidates = node.peers(1)
    other = node.dial()
    assert node.offer(candidates)
    candidates.identify_peers(lambda node: False, 0)
    assert is_closed(other)
    peer.sendall(b"later")
    assert node.links[1].receive(10) == b"later"


def test_connections_from_elsewhere_do_not_wait(node: Accepting) -> None:
    node.dial()
    candidates = node.peers(1)
    node.dial("127.0.0.9")
    assert not node.offer(candidates)


def test_peers_behind_address_translation_are_told_apart_as_well(node: Accepting) -> None:
    stranger = node.dial("127.0.0.8")
    candidates = node.peers(1, addresses=frozenset({"192.0.2.1"}))
    peer = node.dial("127.0.0.9")
    assert node.offer(candidates)
    peer.sendall(b"slice")
    candidates.identify_peers(all_send, 10)
    assert node.links[1].receive(10) == b"slice"
    assert is_closed(stranger)


def test_another_connection_may_be_the_peers_when_the_first_hangs_up(node: Accepting) -> None:
    node.dial().close()
    candidates = node.peers(1)
    peer = node.dial()
    assert node.offer(candidates)
    node.root.sendall(b"x")
    assert node.watch.readable(node.from_root, 10)
    assert not node.watch.readable(node.silent, 0.05)  # the hang-up is seen here: the link can be lost
    peer.sendall(b"slice")
    candidates.identify_peers(all_send, 10)
    assert node.links[1].receive(10) == b"slice"


def test_a_peer_without_any_connection_is_lost_with_the_first_forward(node: Accepting) -> None:
    node.dial().close()
    candidates = node.peers(1)
    waiting = node.dial()
    assert node.offer(candidates)
    assert not node.watch.readable(node.silent, 0.05)
    waiting.close()
    while candidates.reject_early():  # until its end has arrived
        pass
    with pytest.raises(PeerLost, match="node 1: closed the connection before the first sync"):
        candidates.identify_peers(all_send, 10)


def test_a_peer_that_hangs_up_is_lost_where_no_other_connection_waits(node: Accepting) -> None:
    node.dial().close()
    node.peers(1)
    with pytest.raises(PeerLost, match="node 1: closed the connection"):
        node.watch.readable(node.from_root, 10)


def test_who_sends_before_a_forward_can_have_begun_is_no_peer(node: Accepting) -> None:
    first = node.dial()
    candidates = node.peers(1)
    speaker, peer = node.dial(), node.dial()
    assert node.offer(candidates)
    assert node.offer(candidates)
    for stranger in (first, speaker):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert node.watch.any_readable([node.links[1]], 10)
    candidates.check_silent()
    assert is_closed(speaker)
    node.links[1].set_stall_timeout(5)  # as the session does meanwhile
    peer.sendall(b"slice")
    candidates.identify_peers(all_send, 10)
    assert is_closed(first)
    assert node.links[1].receive(10) == b"slice"


def test_a_peer_that_sends_too_early_is_lost(node: Accepting) -> None:
    peer = node.dial()
    candidates = node.peers(1)
    peer.sendall(b"too early")
    assert node.watch.any_readable([node.links[1]], 10)
    with pytest.raises(
        PeerLost, match="node 1: closed the connection, or sent something, before the first sync"
    ):
        candidates.check_silent()


def test_a_waiting_connection_that_sends_early_or_hangs_up_is_rejected(
    node: Accepting, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.dial()
    candidates = node.peers(1)
    speaker, silent = node.dial(), node.dial()
    node.dial().close()
    pending = [node.accept() for _ in range(3)]
    assert all(candidates.offer(connection) for connection in pending)
    speaker.sendall(b"x")
    assert node.watch.any_readable([pending[0]], 10)
    assert candidates.reject_early()  # the first slice may come a little before the root's command
    monkeypatch.setattr(peer_candidates_module, "_MAX_AHEAD", -1.0)
    assert candidates.reject_early()
    assert is_closed(speaker)
    silent.close()
    while candidates.reject_early():  # until its end has arrived
        pass
    assert len(node.reasons) == 3


def test_only_so_many_connections_wait(node: Accepting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_candidates_module, "_MAX_WAITING", 2)
    node.dial()
    candidates = node.peers(1)
    for _ in range(3):
        node.dial()
    assert [node.offer(candidates) for _ in range(3)] == [True, True, False]


def test_peers_that_send_nothing_in_time_are_named(node: Accepting) -> None:
    node.dial()
    candidates = node.peers(1)
    node.dial()
    assert node.offer(candidates)
    with pytest.raises(
        PeerLost, match="node 1: not every peer sent its part of the first sync in time, on 2"
    ):
        candidates.identify_peers(all_send, 0.05)


def test_a_worker_that_is_to_stop_does_not_wait(node: Accepting) -> None:
    node.dial()
    candidates = node.peers(1)
    node.dial()
    assert node.offer(candidates)
    node.stop.set()
    with pytest.raises(Stopped):
        candidates.identify_peers(all_send, 10)


# A whole session ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("node", [2, 3])
def test_a_session_is_right_although_a_silent_stranger_came_before_the_peers(node: int) -> None:
    session = load("gqa-q40-4n")
    recording = read_recording(session, node)
    with worker_process() as worker, ExitStack() as stack:
        plain = play(session, recording, worker.port)
        worker.wait_for("session_ended")

        def intrude() -> None:
            stack.enter_context(socket.create_connection(("127.0.0.1", worker.port)))

        assert play(session, recording, worker.port, before_mesh=intrude) == plain
        worker.wait_for("session_ended")
        assert any("was the peer" in entry["message"] for entry in worker.log)
