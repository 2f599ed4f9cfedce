"""Rows over real sockets: gathered, scattered, in both directions at once, and what a lost peer looks like."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama_worker.errors import PeerLost
from dllama_worker.node.exchange import Exchange, Lane
from dllama_worker.node.transport import Link
from tests.helpers.sockets import tcp_pair


def pattern(n: int, seed: int) -> bytearray:
    return bytearray((i * 31 + seed * 97 + i // 251) % 256 for i in range(n))


@settings(max_examples=30, deadline=None)
@given(
    n_rows=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    slices=st.integers(1, 5),
    size=st.integers(1, 400),
)
def test_slices_of_a_batch_arrive_in_place(n_rows: int, batch_size: int, slices: int, size: int) -> None:
    batch_size = min(batch_size, n_rows)
    row_bytes = slices * size
    ours, theirs = pattern(n_rows * row_bytes, 1), pattern(n_rows * row_bytes, 2)
    before = bytes(theirs)
    near, far = tcp_pair()
    with near, far:
        start = (slices - 1) * size
        send = Lane(Link(near, "near"), memoryview(ours), row_bytes, start, size)
        receive = Lane(Link(far, "far"), memoryview(theirs), row_bytes, start, size)
        Exchange([send], []).run(batch_size)
        Exchange([], [receive]).run(batch_size)
        assert send.link.sent_bytes == receive.link.received_bytes == batch_size * size
    for row in range(n_rows):
        at = row * row_bytes
        expected = bytearray(before[at : at + row_bytes])
        if row < batch_size:
            expected[start : start + size] = ours[at + start : at + start + size]
        assert theirs[at : at + row_bytes] == expected


def test_two_nodes_that_both_write_more_than_the_sockets_hold_do_not_wait_for_each_other() -> None:
    n = 8 << 20
    near, far = tcp_pair(16 << 10)
    near_pipe, far_pipe = pattern(2 * n, 1), pattern(2 * n, 2)
    with near, far:
        near_link, far_link = Link(near, "near"), Link(far, "far")
        exchanges = [
            Exchange(
                [Lane(link, memoryview(pipe), 2 * n, own * n, n)],
                [Lane(link, memoryview(pipe), 2 * n, (1 - own) * n, n)],
            )
            for link, pipe, own in ((near_link, near_pipe, 0), (far_link, far_pipe, 1))
        ]
        other = threading.Thread(target=exchanges[1].run, args=(1,))
        other.start()
        exchanges[0].run(1)
        other.join(timeout=30)
        assert not other.is_alive()
    assert near_pipe == far_pipe


def test_rows_that_go_piece_by_piece_arrive_in_place() -> None:
    """Two lanes of more rows than a system call takes, and more bytes than sockets hold."""
    size, rows = 1000, 3000
    near, far = tcp_pair(64 << 10)
    pipes = [bytearray([own + 1]) * (2 * size * rows) for own in (0, 1)]
    for own, pipe in enumerate(pipes):
        for row in range(rows):
            at = (2 * row + own) * size
            pipe[at : at + size] = row.to_bytes(2, "big") * (size // 2)
    with near, far:
        exchanges = [
            Exchange(
                [Lane(link, memoryview(pipe), 2 * size, own * size, size)],
                [Lane(link, memoryview(pipe), 2 * size, (1 - own) * size, size)],
            )
            for own, (link, pipe) in enumerate(
                zip((Link(near, "near"), Link(far, "far")), pipes, strict=True)
            )
        ]
        other = threading.Thread(target=exchanges[1].run, args=(rows,))
        other.start()
        exchanges[0].run(rows)
        other.join(timeout=30)
        assert not other.is_alive()
    expected = b"".join(row.to_bytes(2, "big") * size for row in range(rows))
    assert [pipe == expected for pipe in pipes] == [True, True]


def test_three_nodes_exchange_slices_all_to_all() -> None:
    size, rows = 700, 9
    row_bytes = 3 * size
    pipes = [pattern(rows * row_bytes, node) for node in range(3)]
    originals = [bytes(pipe) for pipe in pipes]
    ends = {(0, 1): tcp_pair(), (0, 2): tcp_pair(), (1, 2): tcp_pair()}
    links: list[dict[int, Link]] = [{}, {}, {}]
    for (a, b), (near, far) in ends.items():
        links[a][b], links[b][a] = Link(near, f"node {b}"), Link(far, f"node {a}")

    def run(node: int) -> None:
        pipe = memoryview(pipes[node])
        sends = [Lane(link, pipe, row_bytes, node * size, size) for link in links[node].values()]
        receives = [Lane(link, pipe, row_bytes, peer * size, size) for peer, link in links[node].items()]
        Exchange(sends, receives).run(rows)

    threads = [threading.Thread(target=run, args=(node,)) for node in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    expected = b"".join(
        originals[node][row * row_bytes + node * size : row * row_bytes + (node + 1) * size]
        for row in range(rows)
        for node in range(3)
    )
    assert [bytes(pipe) == expected for pipe in pipes] == [True, True, True]
    for near, far in ends.values():
        near.close()
        far.close()


@pytest.mark.parametrize("sending", [False, True])
def test_a_peer_that_goes_away_is_named_with_what_was_missing(sending: bool) -> None:
    near, far = tcp_pair(16 << 10)
    pipe = memoryview(pattern(8 << 20, 1))
    half = len(pipe) // 2
    link = Link(near, "node 2 (here:1)")
    with near:
        far.sendall(b"x" * 10)
        far.close()
        sends = [Lane(link, pipe, len(pipe), 0, half)] if sending else []
        with pytest.raises(PeerLost, match=r"node 2 \(here:1\): (closed the connection|connection reset)"):
            Exchange(sends, [Lane(link, pipe, len(pipe), half, half)]).run(1)
