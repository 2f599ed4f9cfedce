"""Waiting for one connection while others may hang up, without a clock: who comes first is made sure of."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link
from dllama_worker.worker.link_watch import HANG_UP, LinkWatch, Stopped
from dllama_worker.worker.wakeup import Wakeup
from tests.helpers.sockets import tcp_pair

pytestmark = pytest.mark.skipif(
    not HANG_UP, reason="only Linux tells of a hang-up before everything is read"
)

#: Seconds for what has happened already, and for what must end earlier by itself.
NOW, LONG = 0.0, 30.0


class Watched:
    """A watch; links to other nodes, the bare sockets at their other ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.wakeup = Wakeup()
        stack.callback(self.wakeup.close)
        self.watch = LinkWatch(self.wakeup)

    def connect(self, name: str, *, watched: bool = True) -> tuple[Link, socket.socket]:
        near, far = tcp_pair()
        link = Link(near, name)
        self._stack.callback(link.close)
        self._stack.callback(far.close)
        if watched:
            self.watch.add(link)
        return link, far


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(timeouts, "HANG_UP", NOW)
    with ExitStack() as stack:
        yield Watched(stack)


def test_what_has_come_is_told_and_what_has_not_is_not_waited_for_for_ever(watched: Watched) -> None:
    root, far = watched.connect("the root")
    assert not watched.watch.readable(root, NOW)
    far.sendall(b"x")
    assert watched.watch.readable(root, LONG)
    assert root.receive(10) == b"x"
    assert not watched.watch.readable(root, NOW)


def test_the_end_of_the_stream_is_something_to_be_read(watched: Watched) -> None:
    root, far = watched.connect("the root")
    far.close()
    assert watched.watch.readable(root, LONG)
    assert root.receive(10) == b""


def test_a_worker_that_is_to_stop_waits_for_nothing(watched: Watched) -> None:
    root, far = watched.connect("the root")
    far.sendall(b"x")
    watched.wakeup.set()
    for _ in range(2):  # and stays stopped
        with pytest.raises(Stopped):
            watched.watch.readable(root, LONG)


def test_another_node_that_hangs_up_is_noticed_by_name(watched: Watched) -> None:
    root, _ = watched.connect("the root")
    _, far = watched.connect("node 2")
    far.sendall(b"nobody has read this")
    far.close()
    with pytest.raises(PeerLost, match=r"^node 2: closed the connection$"):
        watched.watch.readable(root, LONG)


def test_what_is_waited_for_counts_more_than_a_hang_up(watched: Watched) -> None:
    root, said = watched.connect("the root")
    _, far = watched.connect("node 2")
    said.sendall(b"the session is over")
    far.close()
    assert watched.watch.readable(root, LONG)


def test_what_is_waited_for_may_come_a_little_after_a_hang_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "HANG_UP", LONG)
    root, said = watched.connect("the root")
    peer, far = watched.connect("node 2")

    def too_late(link: Link) -> bool:
        assert link is peer
        said.sendall(b"the session is over")
        return False

    watched.watch.can_lose = too_late
    far.close()
    assert watched.watch.readable(root, LONG)


def test_but_it_is_not_waited_for_long(watched: Watched) -> None:
    root, said = watched.connect("the root")
    _, far = watched.connect("node 2")
    far.close()
    with pytest.raises(PeerLost, match="node 2"):
        watched.watch.readable(root, LONG)
    said.sendall(b"x")
    assert watched.watch.readable(root, LONG)


def test_a_link_that_can_be_lost_ends_no_wait(watched: Watched) -> None:
    root, said = watched.connect("the root")
    peer, far = watched.connect("node 2")
    lost: list[Link] = []

    def can_lose(link: Link) -> bool:
        lost.append(link)
        watched.watch.remove(link)
        said.sendall(b"x")
        return True

    watched.watch.can_lose = can_lose
    far.close()
    assert watched.watch.readable(root, LONG)
    assert lost == [peer]


def test_of_several_all_are_told_that_have_something(watched: Watched) -> None:
    links, ends = zip(*(watched.connect(f"node {i}", watched=i != 1) for i in range(4)), strict=True)
    assert watched.watch.any_readable(links, NOW) == []
    for i in (1, 3):
        ends[i].sendall(b"x")
    ends[2].close()
    assert watched.watch.any_readable(links, LONG) == [links[1], links[2], links[3]]


def test_a_connection_that_is_being_made_is_waited_for(watched: Watched) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        assert watched.watch.writable(sock, LONG)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_a_link_that_was_waited_for_is_still_watched(watched: Watched) -> None:
    root, _ = watched.connect("the root")
    peer, far = watched.connect("node 2")
    assert not watched.watch.readable(peer, NOW)
    far.close()
    with pytest.raises(PeerLost, match="node 2"):
        watched.watch.readable(root, LONG)


def test_one_that_was_not_watched_is_not_watched_afterwards(watched: Watched) -> None:
    root, _ = watched.connect("the root")
    other, far = watched.connect("a stranger", watched=False)
    assert not watched.watch.readable(other, NOW)
    far.close()
    assert not watched.watch.readable(root, NOW)


@pytest.mark.parametrize("forget", [LinkWatch.remove, lambda watch, link: watch.clear()])
def test_forgotten_links_may_hang_up(watched: Watched, forget: object) -> None:
    root, _ = watched.connect("the root", watched=False)
    peer, far = watched.connect("node 2")
    watched.watch.can_lose = lambda link: True
    assert callable(forget)
    forget(watched.watch, peer)
    watched.watch.remove(peer)  # again: it is not known any more
    far.close()
    assert not watched.watch.readable(root, NOW)
    watched.watch.add(peer)
    watched.watch.can_lose = lambda link: False
    with pytest.raises(PeerLost, match="node 2"):
        watched.watch.readable(root, LONG)


def test_clearing_forgets_what_could_be_lost(watched: Watched) -> None:
    watched.watch.can_lose = lambda link: True
    watched.watch.clear()
    root, _ = watched.connect("the root")
    _, far = watched.connect("node 2")
    far.close()
    with pytest.raises(PeerLost, match="node 2"):
        watched.watch.readable(root, LONG)


def test_a_wakeup_that_is_set_often_or_after_its_end_harms_nothing() -> None:
    wakeup = Wakeup()
    for _ in range(10_000):  # more than a socket holds
        wakeup.set()
    with pytest.raises(Stopped):
        LinkWatch(wakeup).readable(wakeup, LONG)
    wakeup.close()
    wakeup.set()
