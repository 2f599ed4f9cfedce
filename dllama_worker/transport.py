"""One TCP connection to another node: exact reads and writes, and how many bytes went which way.

Whatever the socket does wrong becomes :class:`PeerLost` with the node's name; nothing here knows a message.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from dllama_worker.errors import PeerLost

__all__ = ["Link", "lost"]


def lost(node: str, error: OSError) -> PeerLost:
    """Say in a person's words what a socket error means."""
    if isinstance(error, TimeoutError):
        reason = "nothing came in time"
    elif isinstance(error, ConnectionResetError | BrokenPipeError):
        reason = "connection reset"
    else:
        reason = error.strerror or str(error)
    failure = PeerLost(node, reason)
    failure.__cause__ = error
    return failure


class Link:
    """A connected socket and the name people know its other end by.

    ``sent_bytes`` and ``received_bytes`` count everything since the connection was made.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.sock = sock
        self.name = name
        self.sent_bytes = 0
        self.received_bytes = 0
        # Syncs are many small messages whose delay is the cluster's pace.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that vanished without a word is found by the kernel, however long the cluster idles.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)

    def set_timeout(self, seconds: float | None) -> None:
        """Bound every read and write from now on; None waits for ever."""
        self.sock.settimeout(seconds)

    def wait_readable(self, seconds: float) -> bool:
        """Wait until something can be received (or the end be seen); tell whether it came in time."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. Raises PeerLost."""
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise lost(self.name, error) from error
        self.sent_bytes += len(data)

    def receive(self, n: int) -> bytes:
        """Return 1 to ``n`` bytes, or none at the end of the stream. Raises PeerLost."""
        try:
            data = self.sock.recv(n)
        except OSError as error:
            raise lost(self.name, error) from error
        self.received_bytes += len(data)
        return data

    def receive_into(self, view: memoryview) -> int:
        """Fill ``view`` from its start with 1 byte or more and return how many. Raises PeerLost."""
        try:
            n = self.sock.recv_into(view)
        except OSError as error:
            raise lost(self.name, error) from error
        if n == 0:
            raise PeerLost(self.name, f"closed the connection with {len(view)} bytes still to come")
        self.received_bytes += n
        return n

    def shutdown(self) -> None:
        """End both directions; whoever waits on the link, in whatever thread, is woken."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; no error leaves."""
        self.shutdown()
        self.sock.close()
