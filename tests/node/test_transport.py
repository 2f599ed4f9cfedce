"""Links over real sockets: what each error is called, what is counted, how long is waited."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from dllama_worker.errors import PeerLost
from dllama_worker.node import transport
from dllama_worker.node.transport import Link, PendingConnection, lost
from tests.helpers.sockets import reset, tcp_pair

NAME = "node 2 (10.0.0.2:9990)"


class Ends:
    """A link and the bare socket at its other end."""

    def __init__(self, buffer_bytes: int | None = None) -> None:
        near, self.far = tcp_pair(buffer_bytes)
        self.link = Link(near, NAME)

    def send_and_arrive(self, data: bytes) -> None:
        """Have the far end send, and return once it is all there."""
        self.far.sendall(data)
        while n_readable(self.link) < len(data):
            pass

    def close(self) -> None:
        self.link.close()
        self.far.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def n_readable(link: Link) -> int:
    with socket.socket(fileno=os.dup(link.fileno())) as sock:
        try:
            return len(sock.recv(1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return 0


def option(link: Link, level: int, name: int) -> int:
    with socket.socket(fileno=os.dup(link.fileno())) as sock:
        return sock.getsockopt(level, name)


def memory(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


class Clock:
    """The transport's own: it runs only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(transport, "time", self)

    def monotonic(self) -> float:
        return self.now


# Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "nothing came in time"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "nothing came in time"),
        (ConnectionResetError(errno.ECONNRESET, "whatever"), "connection reset"),
        (BrokenPipeError(errno.EPIPE, "whatever"), "connection reset"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError("without a number"), "without a number"),
    ],
)
def test_every_error_of_a_socket_has_words(error: OSError, reason: str) -> None:
    failure = lost(NAME, error)
    assert (failure.node, failure.reason) == (NAME, reason)
    assert str(failure) == f"{NAME}: {reason}"
    assert failure.__cause__ is error


USES: list[Callable[[Link], object]] = [
    lambda link: link.send(bytes(10)),
    lambda link: link.receive(10),
    lambda link: link.receive_into(memoryview(bytearray(10))),
    lambda link: link.send_some(memory(10)),
    lambda link: link.receive_some(memory(10), wait=False),
    lambda link: link.receive_some(memory(10), wait=True),
]


@pytest.mark.parametrize("use", USES)
def test_a_reset_is_the_peers_whatever_is_asked_of_the_link(
    ends: Ends, use: Callable[[Link], object]
) -> None:
    reset(ends.far)
    with pytest.raises(PeerLost, match=r"^node 2 \(10\.0\.0\.2:9990\): connection reset$"):
        use(ends.link)
    assert (ends.link.sent_bytes, ends.link.received_bytes) == (0, 0)


@pytest.mark.parametrize("use", USES)
def test_a_link_that_was_closed_is_lost_to_whoever_uses_it(
    ends: Ends, use: Callable[[Link], object]
) -> None:
    ends.link.close()
    assert ends.link.fileno() == -1
    with pytest.raises(PeerLost, match="Bad file descriptor"):
        use(ends.link)
    ends.link.close()


def test_the_end_of_the_stream_is_an_error_only_where_bytes_are_missing(ends: Ends) -> None:
    ends.far.close()
    assert ends.link.receive(10) == b""
    with pytest.raises(PeerLost, match="closed the connection with 7 bytes still to come"):
        ends.link.receive_into(memoryview(bytearray(7)))
    for wait in (False, True):
        with pytest.raises(PeerLost, match="closed the connection with 9 bytes still to come"):
            ends.link.receive_some(memory(4, 5), wait=wait)


def test_a_socket_that_takes_no_options_is_lost_and_closed() -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(PeerLost, match=f"^{NAME[:6]}"):
            Link(near, NAME)
        assert near.fileno() == -1


# Bytes and counts --------------------------------------------------------------------------------------


def test_messages_are_sent_whole_received_as_they_come_and_counted(ends: Ends) -> None:
    ends.link.send(b"abc")
    ends.link.send(bytearray(b"de"))
    ends.link.send(memoryview(b"f"))
    assert ends.far.recv(6, socket.MSG_WAITALL) == b"abcdef"
    assert ends.link.sent_bytes == 6
    ends.send_and_arrive(b"0123456789")
    assert ends.link.receive(4) == b"0123"
    view = memoryview(bytearray(8))
    assert ends.link.receive_into(view[:2]) == 2
    assert ends.link.receive_into(view[2:]) == 4
    assert bytes(view) == b"456789\0\0"
    assert ends.link.received_bytes == 10


def test_what_cannot_be_sent_at_once_is_left() -> None:
    ends = Ends(256 << 10)
    data = memoryview(bytes(i * 7 % 251 for i in range(8 << 20)))
    n = 0
    while sent := ends.link.send_some([data[n : n + 1000], data[n + 1000 :]]):
        n += sent
    assert 0 < n < len(data)
    assert ends.link.sent_bytes == n
    ends.link.close()
    received = bytearray()
    while part := ends.far.recv(1 << 20):
        received += part
    assert received == data[:n]
    ends.close()


def test_what_is_not_there_is_not_waited_for(ends: Ends) -> None:
    buffers = memory(2, 3, 4)
    assert ends.link.receive_some(buffers, wait=False) == 0
    ends.send_and_arrive(b"abcd")
    assert ends.link.receive_some(buffers, wait=False) == 4
    assert [bytes(buffer) for buffer in buffers] == [b"ab", b"cd\0", b"\0\0\0\0"]
    assert ends.link.received_bytes == 4


def test_who_waits_gets_all_of_it(ends: Ends) -> None:
    buffers = memory(2, 3)
    ends.far.sendall(b"a")
    sender = threading.Thread(target=ends.far.sendall, args=(b"bcde",))
    sender.start()
    assert ends.link.receive_some(buffers, wait=True) == 5
    sender.join(30)
    assert b"".join(buffers) == b"abcde"


def test_more_buffers_than_a_call_takes_go_in_several(ends: Ends) -> None:
    n = 3000
    data = bytes(i % 256 for i in range(n))
    out = [memoryview(data)[i : i + 1] for i in range(n)]
    into = memory(*[1] * n)
    peer = Link(ends.far, "the other end")
    done = 0
    while done < n:
        sent = ends.link.send_some(out[done:])
        assert peer.receive_some(into[done:], wait=True) == sent
        done += sent
    assert b"".join(into) == data
    assert ends.link.sent_bytes == peer.received_bytes == n


def test_a_byte_that_was_looked_at_is_still_there(ends: Ends) -> None:
    assert ends.link.peek() is None
    ends.send_and_arrive(b"xy")
    assert ends.link.peek() == b"x"
    assert ends.link.receive(10) == b"xy"
    ends.far.close()
    assert ends.link.receive(10) == b""
    assert ends.link.peek() == b""
    assert ends.link.received_bytes == 2


def test_a_thread_that_waits_is_woken_by_shutdown(ends: Ends) -> None:
    heard: list[bytes] = []
    waiting = threading.Thread(target=lambda: heard.append(ends.link.receive(10)))
    waiting.start()
    ends.link.shutdown()
    waiting.join(30)
    assert heard == [b""]


# Time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES[:3])
def test_a_deadline_bounds_everything_together(
    ends: Ends, use: Callable[[Link], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    ends.link.set_deadline(10.0)
    ends.send_and_arrive(b"drip drip")
    for _ in range(9):
        assert len(ends.link.receive(1)) == 1
        clock.now += 1.0
    ends.send_and_arrive(b"more")
    clock.now += 1.0
    with pytest.raises(PeerLost, match="nothing came in time"):
        use(ends.link)
    ends.link.set_deadline(None)
    assert ends.link.receive(10) == b"more"


def test_silence_until_the_deadline_is_a_timeout(ends: Ends) -> None:
    ends.link.set_deadline(0.02)
    with pytest.raises(PeerLost, match="nothing came in time"):
        ends.link.receive(10)


def test_a_sync_in_which_nothing_comes_has_stalled(ends: Ends) -> None:
    ends.link.set_stall_timeout(0.02)
    ends.far.sendall(b"abc")
    buffers = memory(8)
    assert ends.link.receive_some(buffers, wait=True) == 3  # as far as it came
    with pytest.raises(PeerLost, match=r"stalled for 0\.02 s with 5 bytes of a sync to go"):
        ends.link.receive_some([buffers[0][3:]], wait=True)
    ends.link.set_stall_timeout(None)
    ends.far.sendall(b"defgh")
    assert ends.link.receive_some([buffers[0][3:]], wait=True) == 5
    assert bytes(buffers[0]) == b"abcdefgh"


# Sockets -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the options have these names on Linux only")
def test_small_messages_go_at_once_and_hosts_that_vanish_are_noticed() -> None:
    near, far = tcp_pair()
    link = Link(near, NAME, keepalive=30.0)
    assert option(link, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert option(link, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(link, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    probes = option(link, socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert probes * option(link, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 30
    assert option(link, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    link.close()
    far.close()


def test_a_link_goes_on_over_another_connection_with_its_counts_and_stall_timeout() -> None:
    (near, far), (other_near, other_far) = tcp_pair(), tcp_pair()
    first = PendingConnection(near, "127.0.0.1", 4711)
    link = Link(first, NAME)
    link.set_stall_timeout(0.02)
    with far, other_far:
        link.send(b"first")
        far.sendall(b"one")
        assert link.receive_some(memory(3), wait=True) == 3
        link.adopt(other_near)
        assert link.fileno() == other_near.fileno()
        link.send(b"second")
        assert far.recv(10) == b"first"
        assert other_far.recv(10) == b"second"
        assert (link.sent_bytes, link.received_bytes) == (11, 3)
        assert option(link, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        with pytest.raises(PeerLost, match=r"stalled for 0\.02 s with 4 bytes"):
            link.receive_some(memory(4), wait=True)
        link.close()
        assert first.receive_now(10) is None  # it is as it was, until its owner closes it
        first.close()


def test_a_pending_connection_never_waits() -> None:
    near, far = tcp_pair()
    pending = PendingConnection(near, "127.0.0.1", 4711)
    with far:
        assert pending.receive_now(10) is None
        assert pending.peek() is None
        far.sendall(b"hello")
        while pending.peek() is None:
            pass
        assert pending.receive_now(4) == b"hell"
        assert pending.peek() == b"o"
        assert pending.received_bytes == 4
        link = Link(pending, NAME)
        assert link.fileno() == pending.fileno()
        assert link.receive(10) == b"o"
        assert link.received_bytes == 5
        far.shutdown(socket.SHUT_WR)
        while pending.peek() is None:
            pass
        assert pending.receive_now(10) == b""
        pending.close()
        assert link.fileno() == -1


def test_a_pending_connection_that_is_reset_is_lost() -> None:
    near, far = tcp_pair()
    pending = PendingConnection(near, "127.0.0.1", 4711)
    reset(far)
    with pytest.raises(PeerLost, match=r"^127\.0\.0\.1:4711: connection reset$"):
        pending.receive_now(10)
    assert pending.peek() == b""
    pending.close()
    assert pending.peek() == b""


@pytest.mark.parametrize(
    ("host", "address"), [("10.0.0.7", "10.0.0.7:9990"), ("fd00::7", "[fd00::7]:9990")]
)
def test_an_address_is_written_as_people_do(host: str, address: str) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert PendingConnection(near, host, 9990).address == address
