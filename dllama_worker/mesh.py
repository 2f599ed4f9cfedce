"""Worker to worker: who dials whom, and telling apart who has dialled.

A worker dials the workers that stand after it in the root's list and accepts those before it (C++
``NnNetwork::serve``). Nothing on the wire says who has dialled. Where addresses differ they tell; where they
don't, and for callers from an address nobody listed (behind address translation), the order of arrival is
taken, as C++ does for all.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from dllama_proto.messages import Greeting, Peer
from dllama_proto.sync_plan import node_of_socket
from dllama_worker.errors import PeerLost
from dllama_worker.transport import Link, lost

__all__ = ["join_mesh"]

#: How long callers from unlisted addresses wait for the listed ones to turn up.
_UNLISTED_GRACE = 2.0


def join_mesh(
    greeting: Greeting,
    listener: socket.socket,
    timeout: float,
    turned_away: Callable[[str, str], None],
    keep: Callable[[Link], None],
) -> dict[int, Link]:
    """Connect to every other worker; return the links by node index.

    ``keep`` is told of every link at once, so that its owner can close it whatever happens; ``turned_away``
    of every caller who is no peer (address, why). Raises PeerLost where a peer cannot be reached or does
    not come within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    links: dict[int, Link] = {}
    expected: dict[int, Peer] = {}
    own_node = greeting.worker_index + 1
    for position, peer in enumerate(greeting.peers):
        node = node_of_socket(own_node, position + 1)
        if node < own_node:
            expected[node] = peer
            continue
        links[node] = _dial(node, peer, deadline)
        keep(links[node])
    for node, sock in _accept(expected, listener, deadline, turned_away).items():
        links[node] = Link(sock, _name(node, expected[node]))
        keep(links[node])
    return links


def _name(node: int, peer: Peer) -> str:
    return f"node {node} ({peer.host}:{peer.port})"


def _dial(node: int, peer: Peer, deadline: float) -> Link:
    name = _name(node, peer)
    try:
        sock = socket.create_connection(
            (peer.host, peer.port), timeout=max(0.1, deadline - time.monotonic())
        )
    except OSError as error:
        raise lost(f"{name}, which the root told us to dial", error) from error
    sock.settimeout(None)
    return Link(sock, name)


def _addresses(peer: Peer) -> frozenset[str]:
    """Return every address a host name stands for; none where it stands for nothing."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]) for entry in found)


def _accept(
    expected: dict[int, Peer],
    listener: socket.socket,
    deadline: float,
    turned_away: Callable[[str, str], None],
) -> dict[int, socket.socket]:
    """Accept one connection for each expected node; the dictionary is in the root's order."""
    addresses = {node: _addresses(peer) for node, peer in expected.items()}
    accepted: dict[int, socket.socket] = {}
    unlisted: list[tuple[socket.socket, str]] = []
    try:
        while missing := [node for node in expected if node not in accepted]:
            patience = _UNLISTED_GRACE if len(unlisted) >= len(missing) else deadline - time.monotonic()
            caller = _next_caller(listener, max(0.0, min(patience, deadline - time.monotonic())))
            if caller is None:
                if len(unlisted) < len(missing):
                    names = ", ".join(_name(node, expected[node]) for node in missing)
                    raise PeerLost(names, "did not connect to us in time")
                accepted.update((node, unlisted.pop(0)[0]) for node in missing)
                continue
            sock, address = caller
            if not _is_silent(sock):
                turned_away(address, "a peer says nothing before the first sync; this one did, or hung up")
                sock.close()
                continue
            node = next((node for node in missing if address in addresses[node]), None)
            if node is None:
                unlisted.append(caller)
            else:
                accepted[node] = sock
    except BaseException:
        for sock in accepted.values():
            sock.close()
        raise
    finally:
        for sock, address in unlisted:
            turned_away(address, "not in the root's list of workers")
            sock.close()
    return accepted


def _next_caller(listener: socket.socket, patience: float) -> tuple[socket.socket, str] | None:
    readable, _, _ = select.select([listener], [], [], patience)
    if not readable:
        return None
    sock, address = listener.accept()
    sock.setblocking(True)
    return sock, str(address[0])


def _is_silent(sock: socket.socket) -> bool:
    """Tell a peer, which waits for its first sync, from a stranger who has spoken or gone already."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
