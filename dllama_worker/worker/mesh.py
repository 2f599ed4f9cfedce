"""Worker to worker: who dials whom, and which accepted connection is whose.

A worker dials the workers after it in the root's list and accepts those before it (C++ ``NnNetwork::serve``).
Nothing on the wire says who has dialled. Where addresses differ they tell. Where they don't, and for connections
from an address that nobody listed (behind address translation), the order of arrival is taken, as C++ does for
all, until the first forward tells more (:mod:`dllama_worker.worker.peer_candidates`).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from dllama_proto.bounded_text import first_few
from dllama_proto.messages import Greeting
from dllama_proto.sync_plan import node_of_socket
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.tls_socket import TlsSocket
from dllama_worker.node.transport import Connected, Link, PendingConnection, lost
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import TOO_EARLY, AcceptedPeer, PeerCandidates
from dllama_worker.worker.resolver import Lookup, Resolver

__all__ = ["join_mesh"]

#: How many connections from unlisted addresses wait at once for ones from listed addresses.
_MAX_UNLISTED = 255

_NOT_LISTED = "not in the root's list of workers"

_UNDER_WAY = (0, errno.EINPROGRESS)


def join_mesh(
    greeting: Greeting,
    listener: Listener,
    watch: LinkWatch,
    resolver: Resolver,
    timeout: float,
    keep: Callable[[Connected, str], Link],
    tls: TlsContexts | None = None,
) -> tuple[dict[int, Link], PeerCandidates]:
    """Connect to every other worker; return the links by node index, and what is known of those that dialled.

    ``keep`` makes a link of a connection and a name, and is called at once, so that the link's owner can close it
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
            links[node] = keep(_dial(name, lookup, listener, watch, deadline, tls), name)
    accepted = []
    for node, connection in sorted(_accept(expected, listener, watch, deadline).items()):
        links[node] = keep(connection, expected[node].name)
        addresses = expected[node].addresses
        is_listed = connection.host in addresses
        accepted.append(AcceptedPeer(node, links[node], connection, addresses, is_listed))
    return links, PeerCandidates(accepted, listener, watch)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A node that will dial this one: its name for people, and every address of its host."""

    name: str
    addresses: frozenset[str]


def _dial(
    peer: str,
    lookup: Lookup,
    listener: Listener,
    watch: LinkWatch,
    deadline: float,
    tls: TlsContexts | None,
) -> socket.socket | TlsSocket:
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
                return sock if tls is None else _secured(name, sock, tls, watch, deadline)
        except BaseException:
            sock.close()
            raise
        sock.close()
        failure = PeerLost(name, os.strerror(code))
    raise failure


def _secured(
    name: str, sock: socket.socket, tls: TlsContexts, watch: LinkWatch, deadline: float
) -> TlsSocket:
    """Shake hands with a peer. Raises PeerLost, also when the time is over, Stopped."""
    secured = TlsSocket(sock, tls.dialling, accepting=False)
    try:
        while not secured.shake_hands():
            if not watch.readable(sock, deadline - time.monotonic()):
                raise PeerLost(name, "no TLS handshake in time; is it without --tls-cert?")
    except OSError as error:
        raise lost(name, error) from error
    return secured


def _accept(
    expected: dict[int, _Expected], listener: Listener, watch: LinkWatch, deadline: float
) -> dict[int, PendingConnection]:
    """Accept one connection for each expected node; the dictionary is in the root's order."""
    accepted: dict[int, PendingConnection] = {}
    unlisted: list[PendingConnection] = []
    try:
        while missing := [node for node in expected if node not in accepted]:
            left = deadline - time.monotonic()
            timeout = min(left, timeouts.UNLISTED) if len(unlisted) >= len(missing) else left
            if not watch.readable(listener, timeout):
                if len(unlisted) < len(missing):
                    names = first_few(expected[node].name for node in missing)
                    raise PeerLost(names, "did not connect to us in time")
                accepted.update((node, unlisted.pop(0)) for node in missing)
                continue
            pending = listener.accept()
            if pending is None:
                continue
            if pending.peek() is not None:
                listener.reject(pending, TOO_EARLY)
                continue
            node = next((node for node in missing if pending.host in expected[node].addresses), None)
            if node is not None:
                accepted[node] = pending
                continue
            unlisted.append(pending)
            if len(unlisted) > _MAX_UNLISTED:
                listener.reject(unlisted.pop(0), _NOT_LISTED)
    except BaseException:
        for pending in accepted.values():
            pending.close()
        raise
    finally:
        for pending in unlisted:
            listener.reject(pending, _NOT_LISTED)
    return accepted
