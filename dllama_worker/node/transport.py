"""TCP connections to other nodes: bytes in and out, how many went which way, and errors in a person's words.

The rule: a connected socket belongs to this module. Who accepts or dials hands it over at once, to a
:class:`PendingConnection` while nobody knows whose it is, or to a :class:`Link`; after that nobody else sees the
socket or calls ``send``, ``recv`` or ``setsockopt`` on it (a test looks after that). Both have a ``fileno``, so
pollers take them as they are. Whatever the socket does wrong becomes :class:`PeerLost` with the node's name.
Nothing here knows a message. With TLS the socket is a :class:`TlsSocket`, which behaves as one.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from typing import TypeAlias

from dllama_proto.endpoint import Endpoint
from dllama_proto.formatting import counted
from dllama_worker import timeouts
from dllama_worker.errors import PeerLost
from dllama_worker.node.socket_options import bound_waits, keep_alive, send_at_once
from dllama_worker.node.tls_socket import TlsSocket

__all__ = ["Connected", "Link", "PendingConnection", "lost"]

#: Buffers a system call takes at most (POSIX guarantees 16, Linux and macOS take 1024).
_IOV_MAX = 1024

#: Bytes that are dropped at a time.
_DROP_BYTES = 1 << 16


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


class PendingConnection:
    """An accepted connection from ``host``, as long as it is not known who that is. Nothing here waits.

    A link that is made of it shares the socket: closing either closes it. ``received_bytes`` counts what was
    received here.
    """

    def __init__(self, sock: socket.socket | TlsSocket, host: str, port: int) -> None:
        self._sock = sock
        sock.settimeout(None)  # or Python would wait, whatever the flags of a call say
        self.host = host
        self.port = port
        self.received_bytes = 0

    @property
    def address(self) -> str:
        """The address as people write it."""
        return str(Endpoint(self.host, self.port))

    def fileno(self) -> int:
        """Return the descriptor, for pollers; -1 once it is closed."""
        return self._sock.fileno()

    @property
    def holds_bytes(self) -> bool:
        """Whether something can be received that no poller sees any more."""
        return isinstance(self._sock, TlsSocket) and self._sock.holds_bytes

    def peek(self) -> bytes | None:
        """Return the first byte to be received, which stays there; see :meth:`Link.peek`."""
        return _peek(self._sock)

    def receive_now(self, n: int) -> bytes | None:
        """Return 1 to ``n`` bytes that are there, or none at the end of the stream; None while there are none.

        Raises PeerLost.
        """
        try:
            data = self._sock.recv(n, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise lost(self.address, error) from error
        self.received_bytes += len(data)
        return data

    def close(self, last: bytes = b"") -> None:
        """Close it, and with it the link that was made of it.

        ``last`` is sent before, as far as the socket takes it at once.
        """
        if last:
            with contextlib.suppress(OSError):
                self._sock.send(last, socket.MSG_DONTWAIT)
        self._sock.close()


#: What a link can be made of.
Connected: TypeAlias = socket.socket | TlsSocket | PendingConnection


class Link:
    """A connection to another node, and the name by which people know that node.

    ``sent_bytes`` and ``received_bytes`` count everything since the connection was made. A host that vanishes
    without a word is noticed after twice ``keepalive`` seconds, however long the cluster idles.

    Messages are sent and received by a deadline (:meth:`set_deadline`); syncs, with ``send_some`` and
    ``receive_some``, have none, but bound each wait (:meth:`set_stall_timeout`).
    """

    def __init__(self, connection: Connected, name: str, keepalive: float = timeouts.KEEPALIVE) -> None:
        """Take a connected socket over, or that of a pending connection. Raises PeerLost."""
        self.name = name
        self.sent_bytes = 0
        self.received_bytes = 0
        #: Seconds that a sync waits for the next byte, None for ever.
        self.stall_timeout: float | None = None
        self._keepalive = keepalive
        self._deadline: float | None = None
        self.adopt(connection)

    def adopt(self, connection: Connected) -> None:
        """Go on over this connection; the socket before it is left as it is. Raises PeerLost."""
        self._sock: socket.socket | TlsSocket
        if isinstance(connection, PendingConnection):
            self._sock = connection._sock
            self.received_bytes += connection.received_bytes
        else:
            self._sock = connection
        try:
            self._sock.settimeout(None)
            send_at_once(self._sock)
            keep_alive(self._sock, self._keepalive)
            if self.stall_timeout is not None:
                bound_waits(self._sock, self.stall_timeout)
        except OSError as error:  # macOS, where the other end has already reset the connection
            self._sock.close()
            raise lost(self.name, error) from error

    def fileno(self) -> int:
        """Return the descriptor, for pollers; -1 once it is closed."""
        return self._sock.fileno()

    @property
    def holds_bytes(self) -> bool:
        """Whether something can be received that no poller sees any more."""
        return isinstance(self._sock, TlsSocket) and self._sock.holds_bytes

    def set_deadline(self, seconds: float | None) -> None:
        """Everything that is sent and received from now on must be done in so many seconds; None in any time."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._sock.settimeout(seconds)

    def set_stall_timeout(self, seconds: float | None) -> None:
        """Bound how long a sync waits for a byte to come or go; None: no limit."""
        self.stall_timeout = seconds
        bound_waits(self._sock, seconds)

    # Messages and payloads ---------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            self._sock.sendall(data)
        except OSError as error:
            raise lost(self.name, error) from error
        self.sent_bytes += len(data)

    def receive(self, n: int) -> bytes:
        """Return 1 to ``n`` bytes, or none at the end of the stream. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            data = self._sock.recv(n)
        except OSError as error:
            raise lost(self.name, error) from error
        self.received_bytes += len(data)
        return data

    def receive_into(self, view: memoryview) -> int:
        """Fill ``view`` from its start with 1 byte or more and return how many. Raises PeerLost."""
        try:
            self._hold_to_deadline()
            n = self._sock.recv_into(view)
        except OSError as error:
            raise lost(self.name, error) from error
        if n == 0:
            raise self._closed(len(view))
        self.received_bytes += n
        return n

    # Syncs -------------------------------------------------------------------------------------------------

    def send_some(self, buffers: Sequence[memoryview]) -> int:
        """Send what the socket takes now of ``buffers``, one after another; return the bytes, 0 for none.

        Buffers are of bytes, and there is at least one. Raises PeerLost.
        """
        try:
            n = self._sock.sendmsg(
                buffers if len(buffers) <= _IOV_MAX else buffers[:_IOV_MAX], (), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return 0
        except OSError as error:
            raise lost(self.name, error) from error
        self.sent_bytes += n
        return n

    def receive_some(self, buffers: Sequence[memoryview], *, wait: bool) -> int:
        """Receive what is there into ``buffers``, one after another; return the bytes, 0 for none.

        With ``wait``, sleep until all that one call takes has come. Raises PeerLost, also at the end of the stream
        and where the peer stalls for longer than the stall timeout.
        """
        try:
            n = self._sock.recvmsg_into(
                buffers if len(buffers) <= _IOV_MAX else buffers[:_IOV_MAX],
                0,
                socket.MSG_WAITALL if wait else socket.MSG_DONTWAIT,
            )[0]
        except BlockingIOError:
            if wait:
                raise self.stalled(_size(buffers)) from None
            return 0
        except OSError as error:
            raise lost(self.name, error) from error
        if n == 0:
            raise self._closed(_size(buffers))
        self.received_bytes += n
        return n

    def stalled(self, n_bytes: int) -> PeerLost:
        """Return the error of a sync in which nothing moves while ``n_bytes`` are missing."""
        return PeerLost(
            self.name,
            f"stalled for {self.stall_timeout:g} s with {counted(n_bytes, 'byte')} of a sync to go",
        )

    def peek(self) -> bytes | None:
        """Return the first byte to be received, which stays there.

        None while there is none, no byte at the end of the stream or where the connection is broken.
        """
        return _peek(self._sock)

    def shutdown(self) -> None:
        """End both directions; every thread that waits on the link is woken."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; no error leaves."""
        self.shutdown()
        self._sock.close()

    def close_after(self, data: bytes, seconds: float, drain_seconds: float) -> None:
        """Send a last message, as far as the other end takes it within ``seconds``, and close; no error leaves.

        What the other end still sends is dropped until it closes, ``drain_seconds`` at most: closing with bytes
        unread resets a connection, and that may destroy the message before it is read (RFC 2525, section 2.17).
        """
        try:
            self.set_deadline(seconds)
            self.send(data)
            self._sock.shutdown(socket.SHUT_WR)
            self.set_deadline(drain_seconds)
            dropped = memoryview(bytearray(_DROP_BYTES))
            while True:
                self.receive_into(dropped)
        except (OSError, PeerLost):
            self.close()

    def _hold_to_deadline(self) -> None:
        """Give the next call what is left of the time; a byte now and then wins none."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)

    def _closed(self, n_bytes: int) -> PeerLost:
        return PeerLost(self.name, f"closed the connection with {counted(n_bytes, 'byte')} still to come")


def _size(buffers: Sequence[memoryview]) -> int:
    return sum(len(buffer) for buffer in buffers)


def _peek(sock: socket.socket | TlsSocket) -> bytes | None:
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""
