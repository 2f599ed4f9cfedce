"""One TCP connection to another node: exact reads and writes, and how many bytes went which way.

Whatever the socket does wrong becomes :class:`PeerLost` with the node's name; nothing here knows a message.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

from dllama_worker.errors import PeerLost

__all__ = ["KEEPALIVE", "Link", "lost"]

#: Seconds of silence after which the kernel asks a host whether it is still there; as many later it is given up.
KEEPALIVE = 60.0

_N_PROBES = 6


def lost(node: str, error: OSError) -> PeerLost:
    """Say in a person's words what a socket error means."""
    if isinstance(error, TimeoutError | BlockingIOError):
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

    ``sent_bytes`` and ``received_bytes`` count everything since the connection was made. A host that vanishes
    without a word is noticed after twice ``keepalive`` seconds, however long the cluster idles.
    """

    def __init__(self, sock: socket.socket, name: str, keepalive: float = KEEPALIVE) -> None:
        self.sock = sock
        self.name = name
        self.sent_bytes = 0
        self.received_bytes = 0
        self._keepalive = keepalive
        #: Seconds that a sync waits for the next byte, None for ever.
        self.stall_timeout: float | None = None
        self._deadline: float | None = None
        self.adopt(sock)

    def adopt(self, sock: socket.socket) -> None:
        """Go on over this socket; the one before it is left as it is."""
        self.sock = sock
        sock.settimeout(None)
        # Syncs are many small messages whose delay is the cluster's pace.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            seconds = max(1, round(self._keepalive))
            interval = max(1, round(self._keepalive / _N_PROBES))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _N_PROBES)
            # Keep-alive rests while bytes of ours are on their way: then this counts.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * seconds)
        if self.stall_timeout is not None:
            self.set_stall_timeout(self.stall_timeout)

    def set_deadline(self, seconds: float | None) -> None:
        """Everything that is sent and received from now on must be done in so many seconds; None in any time."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.sock.settimeout(seconds)

    def set_stall_timeout(self, seconds: float | None) -> None:
        """Bound how long a sync waits for a byte to come or go. The kernel does it, so waiting costs no more."""
        self.stall_timeout = seconds
        whole = 0 if seconds is None else int(seconds)
        micros = 0 if seconds is None else int((seconds - whole) * 1_000_000)
        interval = struct.pack("ll", whole, micros)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            self.sock.sendall(data)
        except OSError as error:
            raise lost(self.name, error) from error
        self.sent_bytes += len(data)

    def receive(self, n: int) -> bytes:
        """Return 1 to ``n`` bytes, or none at the end of the stream. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            data = self.sock.recv(n)
        except OSError as error:
            raise lost(self.name, error) from error
        self.received_bytes += len(data)
        return data

    def receive_into(self, view: memoryview) -> int:
        """Fill ``view`` from its start with 1 byte or more and return how many. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            n = self.sock.recv_into(view)
        except OSError as error:
            raise lost(self.name, error) from error
        if n == 0:
            raise PeerLost(self.name, f"closed the connection with {len(view)} bytes still to come")
        self.received_bytes += n
        return n

    def _hold_to_deadline(self) -> None:
        """Give the next call what is left of the time; a byte now and then wins none."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)

    def shutdown(self) -> None:
        """End both directions; whoever waits on the link, in whatever thread, is woken."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; no error leaves."""
        self.shutdown()
        self.sock.close()
