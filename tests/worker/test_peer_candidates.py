"""Strangers from a peer's address: who comes first does not matter, the first forward tells who is who."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest

from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link
from dllama_worker.worker import peer_candidates as peer_candidates_module
from dllama_worker.worker.link_watch import LinkWatch, Stopped
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import AcceptedPeer, PeerCandidates
from tests.helpers.captures import load
from tests.helpers.processes import worker_process
from tests.helpers.reports import Collected
from tests.worker.replay import play, read_recording

HOST = frozenset({"127.0.0.1"})


class Table:
    """A node's listener and the places behind it; ``call`` is somebody who dials."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.report = Collected()
        self.listener = Listener("127.0.0.1", 0, (), self.report)
        self._address = self.listener.listen()
        stack.callback(self.listener.close)
        ours, self.wake = (stack.enter_context(end) for end in socket.socketpair())
        self.watch = LinkWatch(ours)
        self.from_root, self.root = (stack.enter_context(end) for end in socket.socketpair())
        self.links: dict[int, Link] = {}

    def call(self, source: str = "127.0.0.1") -> socket.socket:
        return self._stack.enter_context(
            socket.create_connection(self._address, timeout=10, source_address=(source, 0))
        )

    def seats(self, *nodes: int, addresses: frozenset[str] = HOST) -> PeerCandidates:
        """AcceptedPeer whoever has called, in order."""
        made = []
        for node in nodes:
            caller = self.listener.accept()
            assert caller is not None
            link = self.links[node] = Link(caller.sock, f"node {node}")
            self._stack.callback(link.close)
            self.watch.add(link)
            made.append(AcceptedPeer(node, link, caller, addresses, caller.host in addresses))
        seats = PeerCandidates(made, self.listener, self.watch)
        self._stack.callback(seats.close)
        self.watch.can_lose = seats.release
        return seats

    def offer(self, seats: PeerCandidates) -> bool:
        caller = self.listener.accept()
        assert caller is not None
        accepted = seats.offer(caller)
        if not accepted:
            caller.sock.close()
        return accepted

    @property
    def reasons(self) -> list[str]:
        return [fields["reason"] for fields in self.report.of("turned_away")]


@pytest.fixture
def table() -> Iterator[Table]:
    with ExitStack() as stack:
        yield Table(stack)


def everybody(node: int) -> bool:
    return True


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def test_a_stranger_who_came_first_does_not_keep_the_place(table: Table) -> None:
    stranger = table.call()
    seats = table.seats(1)
    peer = table.call()
    assert table.offer(seats)
    peer.sendall(b"slice")
    seats.settle(everybody, 10)
    assert table.links[1].receive(10) == b"slice"
    table.links[1].send(b"ours")
    assert peer.recv(10) == b"ours"
    assert is_closed(stranger)
    assert table.reasons == ["another caller from a peer's address was the peer"]


@pytest.mark.parametrize("stranger_first", [False, True])
def test_peers_of_one_host_keep_the_order_in_which_they_came(table: Table, stranger_first: bool) -> None:
    one, other = table.call(), table.call()
    stranger, first = (one, other) if stranger_first else (other, one)
    seats = table.seats(1, 2)
    second = table.call()
    assert table.offer(seats)
    second.sendall(b"second")
    first.sendall(b"first")
    seats.settle(everybody, 10)
    assert table.links[1].receive(10) == b"first"
    assert table.links[2].receive(10) == b"second"
    assert is_closed(stranger)


def test_a_peer_that_has_spoken_is_not_turned_away_while_another_is_waited_for(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_candidates_module, "_AHEAD", -1.0)
    table.call(), table.call()
    seats = table.seats(1, 2)
    peers = [table.call(), table.call()]
    assert [table.offer(seats) for _ in peers] == [True, True]
    wait = table.watch.any_readable

    def look_after_them_and_wait(socks: Iterable[socket.socket], seconds: float) -> list[socket.socket]:
        assert not seats.reject_early()  # the session_guard does, at any time
        peers.pop(0).sendall(b"slice")
        return wait(socks, seconds)

    monkeypatch.setattr(table.watch, "any_readable", look_after_them_and_wait)
    seats.settle(everybody, 10)
    assert peers == []
    assert [table.links[node].receive(10) for node in (1, 2)] == [b"slice"] * 2


def test_nobody_is_waited_for_where_nobody_else_has_called(table: Table) -> None:
    peer = table.call()
    seats = table.seats(1)
    seats.settle(everybody, 0)  # it has said nothing, and need not yet
    peer.sendall(b"slice")
    assert table.links[1].receive(10) == b"slice"
    table.call()
    assert not table.offer(seats)


def test_a_peer_that_says_nothing_in_a_forward_keeps_its_place(table: Table) -> None:
    peer = table.call()
    seats = table.seats(1)
    other = table.call()
    assert table.offer(seats)
    seats.settle(lambda node: False, 0)
    assert is_closed(other)
    peer.sendall(b"later")
    assert table.links[1].receive(10) == b"later"


def test_callers_from_elsewhere_do_not_wait(table: Table) -> None:
    table.call()
    seats = table.seats(1)
    table.call("127.0.0.9")
    assert not table.offer(seats)


def test_peers_behind_address_translation_are_told_apart_as_well(table: Table) -> None:
    stranger = table.call("127.0.0.8")
    seats = table.seats(1, addresses=frozenset({"192.0.2.1"}))
    peer = table.call("127.0.0.9")
    assert table.offer(seats)
    peer.sendall(b"slice")
    seats.settle(everybody, 10)
    assert table.links[1].receive(10) == b"slice"
    assert is_closed(stranger)


def test_a_holder_that_hangs_up_makes_room_for_who_waits(table: Table) -> None:
    table.call().close()
    seats = table.seats(1)
    peer = table.call()
    assert table.offer(seats)
    table.root.sendall(b"x")
    assert table.watch.readable(table.from_root, 10)
    assert not table.watch.readable(table.wake, 0.05)  # the hang-up is seen here, and forgiven
    peer.sendall(b"slice")
    seats.settle(everybody, 10)
    assert table.links[1].receive(10) == b"slice"


def test_a_place_that_nobody_has_any_more_is_lost_with_the_first_forward(table: Table) -> None:
    table.call().close()
    seats = table.seats(1)
    waiting = table.call()
    assert table.offer(seats)
    assert not table.watch.readable(table.wake, 0.05)
    waiting.close()
    while seats.reject_early():  # until its end has arrived
        pass
    with pytest.raises(PeerLost, match="node 1: hung up before the first sync"):
        seats.settle(everybody, 10)


def test_a_holder_that_hangs_up_is_lost_where_nobody_waits(table: Table) -> None:
    table.call().close()
    table.seats(1)
    with pytest.raises(PeerLost, match="node 1: closed the connection"):
        table.watch.readable(table.from_root, 10)


def test_who_speaks_before_a_forward_can_have_begun_is_no_peer(table: Table) -> None:
    holder = table.call()
    seats = table.seats(1)
    speaker, peer = table.call(), table.call()
    assert table.offer(seats)
    assert table.offer(seats)
    for stranger in (holder, speaker):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert table.watch.any_readable([table.links[1].sock], 10)
    seats.check_silent()
    assert is_closed(speaker)
    table.links[1].set_stall_timeout(5)  # as the session does meanwhile
    peer.sendall(b"slice")
    seats.settle(everybody, 10)
    assert is_closed(holder)
    assert table.links[1].receive(10) == b"slice"


def test_a_peer_that_speaks_too_early_is_lost(table: Table) -> None:
    peer = table.call()
    seats = table.seats(1)
    peer.sendall(b"too early")
    assert table.watch.any_readable([table.links[1].sock], 10)
    with pytest.raises(PeerLost, match="node 1: hung up, or said something, before the first sync"):
        seats.check_silent()


def test_who_waits_and_speaks_for_a_while_or_hangs_up_is_turned_away(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.call()
    seats = table.seats(1)
    speaker, silent = table.call(), table.call()
    table.call().close()
    callers = [table.listener.accept() for _ in range(3)]
    assert all(caller is not None and seats.offer(caller) for caller in callers)
    speaker.sendall(b"x")
    assert callers[0] is not None
    assert table.watch.any_readable([callers[0].sock], 10)
    assert seats.reject_early()  # the first slice may come a little before the root's word for it
    monkeypatch.setattr(peer_candidates_module, "_AHEAD", -1.0)
    assert seats.reject_early()
    assert is_closed(speaker)
    silent.close()
    while seats.reject_early():  # until its end has arrived
        pass
    assert len(table.reasons) == 3


def test_only_so_many_wait(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_candidates_module, "_MAX_WAITING", 2)
    table.call()
    seats = table.seats(1)
    for _ in range(3):
        table.call()
    assert [table.offer(seats) for _ in range(3)] == [True, True, False]


def test_peers_that_do_not_speak_in_time_are_named(table: Table) -> None:
    table.call()
    seats = table.seats(1)
    table.call()
    assert table.offer(seats)
    with pytest.raises(PeerLost, match="node 1: 2 have called, not all of the peers speak in time"):
        seats.settle(everybody, 0.05)


def test_a_worker_that_is_to_stop_waits_for_nobody(table: Table) -> None:
    table.call()
    seats = table.seats(1)
    table.call()
    assert table.offer(seats)
    table.wake.send(b"\0")
    with pytest.raises(Stopped):
        seats.settle(everybody, 10)


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
