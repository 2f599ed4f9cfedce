"""Worker to worker: who dials whom, and telling apart who has dialled.

A worker dials the workers that stand after it in the root's list and accepts those before it (C++
``NnNetwork::serve``). Nothing on the wire says who has dialled. Where addresses differ they tell; where they
don't, and for callers from an address nobody listed (behind address translation), the order of arrival is
taken, as C++ does for all, until the first forward tells more (:mod:`dllama_worker.worker.peer_candidates`).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from dllama_proto.messages import Greeting
from dllama_proto.sync_plan import node_of_socket
from dllama_worker.errors import PeerLost
from dllama_worker.node.transport import Link, lost
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener, PendingConnection
from dllama_worker.worker.peer_candidates import AcceptedPeer, PeerCandidates, peek
from dllama_worker.worker.resolver import Lookup, Resolver

__all__ = ["join_mesh"]

#: How long callers from unlisted addresses wait for the listed ones to turn up.
_UNLISTED_GRACE = 2.0

#: How many of them are kept at once.
_MAX_UNLISTED = 255

_UNDER_WAY = (0, errno.EINPROGRESS)


def join_mesh(
    greeting: Greeting,
    listener: Listener,
    watch: LinkWatch,
    resolver: Resolver,
    timeout: float,
    keep: Callable[[socket.socket, str], Link],
) -> tuple[dict[int, Link], PeerCandidates]:
    """Connect to every other worker; return the links by node index, and the places of those who dialled.

    ``keep`` makes a link of a socket and a name, and is called at once, so that the link's owner can close it
    whatever happens. Raises PeerLost where a peer cannot be reached or does not come within ``timeout``
    seconds or the root hangs up meanwhile, Stopped.
    """
    deadline = time.monotonic() + timeout
    links: dict[int, Link] = {}
    expected: dict[int, _Expected] = {}
    own_node = greeting.worker_index + 1
    lookups = resolver.look_up(greeting.peers, watch, deadline)
    for position, (peer, lookup) in enumerate(zip(greeting.peers, lookups, strict=True)):
        node = node_of_socket(own_node, position + 1)
        name = f"node {node} ({peer.endpoint})"
        if node < own_node:
            expected[node] = _Expected(name, frozenset(address.host for address in lookup.addresses))
        else:
            links[node] = keep(_dial(name, lookup, listener, watch, deadline), name)
    seats = []
    for node, caller in sorted(_accept(expected, listener, watch, deadline).items()):
        links[node] = keep(caller.sock, expected[node].name)
        addresses = expected[node].addresses
        seats.append(AcceptedPeer(node, links[node], caller, addresses, caller.host in addresses))
    return links, PeerCandidates(seats, listener, watch)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A node that will call: how people name it, and every address that its host's name stands for."""

    name: str
    addresses: frozenset[str]


def _dial(
    peer: str, lookup: Lookup, listener: Listener, watch: LinkWatch, deadline: float
) -> socket.socket:
    """Connect to a peer at the first of its addresses that answers."""
    name = f"{peer}, which the root told us to dial"
    failure = PeerLost(name, "nothing is known by that name")
    if lookup.error is not None:
        raise lost(name, lookup.error) from lookup.error
    for address in lookup.addresses:
        if not listener.permits(address.host):
            failure = PeerLost(name, f"{address.host} is not in --allow")
            continue
        sock = socket.socket(address.family, address.kind, address.protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(address.sockaddr)
            if code in _UNDER_WAY:
                in_time = watch.writable(sock, deadline - time.monotonic())
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if in_time else errno.ETIMEDOUT
            if code == 0:
                sock.setblocking(True)
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
        failure = PeerLost(name, os.strerror(code))
    raise failure


def _accept(
    expected: dict[int, _Expected], listener: Listener, watch: LinkWatch, deadline: float
) -> dict[int, PendingConnection]:
    """Accept one connection for each expected node; the dictionary is in the root's order."""
    accepted: dict[int, PendingConnection] = {}
    unlisted: list[PendingConnection] = []
    try:
        while missing := [node for node in expected if node not in accepted]:
            left = deadline - time.monotonic()
            patience = min(left, _UNLISTED_GRACE) if len(unlisted) >= len(missing) else left
            if not watch.readable(listener.sock, patience):
                if len(unlisted) < len(missing):
                    names = ", ".join(expected[node].name for node in missing)
                    raise PeerLost(names, "did not connect to us in time")
                accepted.update((node, unlisted.pop(0)) for node in missing)
                continue
            caller = listener.accept()
            if caller is None:
                continue
            if peek(caller.sock) is not None:
                listener.reject(
                    caller, "a peer says nothing before the first sync; this one did, or hung up"
                )
                continue
            node = next((node for node in missing if caller.host in expected[node].addresses), None)
            if node is not None:
                accepted[node] = caller
                continue
            unlisted.append(caller)
            if len(unlisted) > _MAX_UNLISTED:
                listener.reject(unlisted.pop(0), "not in the root's list of workers")
    except BaseException:
        for caller in accepted.values():
            caller.sock.close()
        raise
    finally:
        for caller in unlisted:
            listener.reject(caller, "not in the root's list of workers")
    return accepted
