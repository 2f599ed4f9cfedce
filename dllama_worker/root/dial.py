"""Connecting to all workers: who is not there yet is waited for, and named.

All are dialled before any is greeted. So a worker that is missing costs nobody else a session, and those that are
there wait without one.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Mapping

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.tls_socket import dial_tls
from dllama_worker.node.transport import PendingConnection, lost

__all__ = ["addresses_of", "dial_all", "node_name"]

#: Seconds between two looks whether a worker listens: the first, and the longest.
_FIRST_PAUSE, _MAX_PAUSE = 0.05, 1.0

#: What to do about it, where that can be said.
_HINTS = {
    errno.ECONNREFUSED: "nobody listens there: start the worker, or let the root wait for it (--wait SECONDS); a "
    "C++ worker does not listen while it serves another root",
}
_SILENT = "is the address right, and does a firewall let it through?"


def addresses_of(worker: Endpoint) -> frozenset[tuple[str, int]]:
    """Return the addresses, with the port, that a worker's name stands for; none where it cannot be looked up."""
    try:
        found = socket.getaddrinfo(worker.host, worker.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    ends = (Endpoint.of_socket(address) for *_, address in found)
    return frozenset((end.host, end.port) for end in ends)


def node_name(node: int, address: Endpoint) -> str:
    """Return what people call a node."""
    return f"node {node} ({address})"


def dial_all(
    addresses: Mapping[int, Endpoint],
    seconds: float,
    on_wait: Callable[[Mapping[int, PeerLost]], None],
    tls: TlsContexts | None = None,
) -> dict[int, PendingConnection]:
    """Connect to all workers, by node index; try for ``seconds`` where one is not there yet.

    ``on_wait`` is told once who is missing, and why. A connection that is closed meanwhile counts as none. Raises
    PeerLost for the first one that is missing when the time is over, the others closed.
    """
    deadline = time.monotonic() + seconds
    found: dict[int, PendingConnection] = {}
    pause, is_told = _FIRST_PAUSE, False
    missing: dict[int, PeerLost] = {}
    try:
        while True:
            missing = _dial_missing(addresses, found, tls)
            if not missing:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise next(iter(missing.values()))
            if not is_told:
                on_wait(missing)
                is_told = True
            time.sleep(min(pause, left))
            pause = min(2 * pause, _MAX_PAUSE)
    except BaseException:
        for pending in found.values():
            pending.close()
        raise
    finally:
        missing = {}  # what is raised is one of them: its traceback and this frame would keep each other alive


def _dial_missing(
    addresses: Mapping[int, Endpoint], found: dict[int, PendingConnection], tls: TlsContexts | None
) -> dict[int, PeerLost]:
    """Dial those that are not connected, or not any more; return why some still aren't."""
    missing: dict[int, PeerLost] = {}
    for node, address in addresses.items():
        if node in found:
            if found[node].peek() != b"":
                continue
            found.pop(node).close()
        try:
            sock = socket.create_connection((address.host, address.port), timeout=timeouts.DIAL)
            secured = sock if tls is None else dial_tls(sock, tls.dialling, timeouts.DIAL)
            found[node] = PendingConnection(secured, address.host, address.port)
        except OSError as error:
            missing[node] = _unreachable(node_name(node, address), error.with_traceback(None))
    return missing


def _unreachable(name: str, error: OSError) -> PeerLost:
    failure = lost(f"{name} cannot be reached", error)
    hint = _SILENT if isinstance(error, TimeoutError) else _HINTS.get(error.errno or 0, "")
    return failure.with_hint(hint)
