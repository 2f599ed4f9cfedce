"""Between two ops of a config that is prepared for, a worker looks at who wants it to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dllama_ops.plugins import make_plugin_manager
from dllama_ops.table import build_kernel_table
from dllama_worker import timeouts
from dllama_worker.errors import MachineError, PeerLost
from dllama_worker.node.node import Node
from dllama_worker.node.transport import Link
from dllama_worker.worker import preparation_watch
from dllama_worker.worker.link_watch import HANG_UP, LinkWatch, Stopped
from dllama_worker.worker.preparation_watch import PreparationWatch, preparation_seconds
from dllama_worker.worker.wakeup import Wakeup
from tests.fuzz.targets import parse
from tests.helpers.many_ops import ropes, said
from tests.helpers.sockets import tcp_pair


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Watched:
    """A watch of a link to the root; the bare socket at its other end."""

    def __init__(self, stack: ExitStack) -> None:
        self.wakeup = Wakeup()
        stack.callback(self.wakeup.close)
        near, self.root = tcp_pair()
        link = Link(near, "the root")
        stack.callback(link.close)
        stack.callback(self.root.close)
        self.watch = LinkWatch(self.wakeup)
        self.watch.add(link)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(preparation_watch, "time", clock)
    return clock


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


def test_nobody_is_looked_at_too_often(watched: Watched, clock: Clock) -> None:
    check = PreparationWatch(watched.watch)
    watched.wakeup.set()
    check()
    clock.now += 1
    with pytest.raises(Stopped):
        check()


@pytest.mark.skipif(not HANG_UP, reason="only Linux tells of a hang-up before everything is read")
def test_a_root_that_has_left_is_noticed_after_a_moment(watched: Watched, clock: Clock) -> None:
    check = PreparationWatch(watched.watch)
    watched.root.close()
    clock.now += timeouts.ABANDONED
    check()
    clock.now += 1
    with pytest.raises(PeerLost, match=r"the root: closed the connection"):
        check()


def test_there_is_a_limit_that_grows_with_what_is_to_be_filled(watched: Watched, clock: Clock) -> None:
    agreed = parse(said(ropes(1, 4, 1_000_000)))
    assert agreed is not None
    seconds = preparation_seconds(agreed.net, agreed.node, 10.0)
    assert 10.9 < seconds < 11.1  # 16 MB
    check = PreparationWatch(watched.watch, seconds)
    clock.now += seconds
    check()
    clock.now += 1
    with pytest.raises(MachineError, match=r"took longer than 11 s: use fewer ops"):
        check()


class _EndsAfter:
    def __init__(self, n: int) -> None:
        self.left = n
        self.n_calls = 0

    def __call__(self) -> None:
        self.n_calls += 1
        self.left -= 1
        if self.left < 0:
            raise Stopped


def test_every_step_of_preparing_can_be_ended() -> None:
    """Ops are resolved, counted and made, and the cache of all is filled; each of it looks between two ops."""
    agreed = parse(said(ropes(20, 4096)))
    assert agreed is not None
    table = build_kernel_table(make_plugin_manager(), "")
    counting = _EndsAfter(10_000)
    Node(agreed.net, agreed.node, {}, table, 1, lambda *_: None, check=counting)  # type: ignore[arg-type]
    n_pieces = 4096 * 32 // (1 << 15)
    assert counting.n_calls == 3 * 20 + n_pieces
    for n in (5, 25, 45, 61):
        with pytest.raises(Stopped):
            Node(agreed.net, agreed.node, {}, table, 1, lambda *_: None, check=_EndsAfter(n))  # type: ignore[arg-type]
