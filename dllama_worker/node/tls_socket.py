"""A connected socket with TLS on it, with as much of a socket's interface as a link needs.

OpenSSL reads and writes memory here, and this module moves it: so a call waits or not by its flags, as on a plain
socket, and the kernel's limits on waiting hold. One thread at a time uses it, except for ``shutdown``.

What has been received may wait in memory where no poller sees it: ``holds_bytes`` tells. The end of the stream is
the connection's end: every message says how long it is, so a connection that is cut off is noticed anyway.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import time
from collections.abc import Sequence

from dllama_worker.node.tls import NotTls, tls_failure

__all__ = ["TlsSocket", "accept_tls", "dial_tls"]

#: Encrypted bytes received at once, and plain bytes encrypted at once (8 of TLS's largest records).
_RECEIVED_AT_ONCE = 1 << 17
_SENT_AT_ONCE = 1 << 17


#: The first byte of a handshake of TLS (RFC 8446, section 5.1).
_HANDSHAKE = 0x16


class TlsSocket:
    """Takes a connected socket over. Whatever goes wrong is an OSError with a person's words."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, accepting: bool) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=accepting)
        self._received = memoryview(bytearray(_RECEIVED_AT_ONCE))
        #: Encrypted bytes that the socket has not taken, and how many of the caller's they are: those are said to
        #: be sent when they are, so the caller offers them again.
        self._unsent = memoryview(b"")
        self._n_offered = 0
        self._peeked = b""
        self._has_heard = not accepting

    def shake_hands(self) -> bool:
        """Go on with the handshake without waiting; tell whether it is complete."""
        while True:
            is_complete = True
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                is_complete = False
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._flush(socket.MSG_DONTWAIT)  # the other end is told what is wrong
                raise tls_failure(error) from error
            try:
                self._flush(socket.MSG_DONTWAIT)
                if is_complete:
                    return True
                self._fill(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionError as error:
                raise OSError(errno.EPROTO, "connection reset during the TLS handshake") from error
            if not self._has_heard and self._incoming.pending and self._received[0] != _HANDSHAKE:
                raise NotTls
            self._has_heard = True

    @property
    def has_heard(self) -> bool:
        """Whether anything of a handshake has come."""
        return self._has_heard

    @property
    def holds_bytes(self) -> bool:
        """Whether something can be received that has left the socket already."""
        if not self._peeked and (self._incoming.pending or self._tls.pending()):
            with contextlib.suppress(ssl.SSLError):
                self._peeked = self._tls.read(1)
        return bool(self._peeked)

    # As a socket has it ------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor; -1 once it is closed."""
        return self._sock.fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Bound the next call, as a whole."""
        self._sock.settimeout(seconds)

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option of the socket."""
        self._sock.setsockopt(level, option, value)

    def recv(self, n: int, flags: int = 0) -> bytes:
        """Return 1 to ``n`` bytes, or none at the end of the stream; takes MSG_PEEK (for 1 byte), MSG_DONTWAIT."""
        if not flags & socket.MSG_PEEK:
            data = bytearray(n)
            del data[self._read(memoryview(data), flags) :]
            return bytes(data)
        if not self._peeked:
            byte = bytearray(1)
            if not self._read(memoryview(byte), flags & socket.MSG_DONTWAIT):
                return b""
            self._peeked = bytes(byte)
        return self._peeked

    def recv_into(self, view: memoryview) -> int:
        """Receive what one record holds, or waiting for it; 0 at the end of the stream."""
        return self._read(view, 0)

    def recvmsg_into(
        self, buffers: Sequence[memoryview], ancillary_size: int = 0, flags: int = 0
    ) -> tuple[int, list[tuple[int, int, bytes]], int, None]:
        """Fill the buffers one after another; takes MSG_WAITALL and MSG_DONTWAIT."""
        n_bytes = 0
        flags &= socket.MSG_DONTWAIT
        for buffer in buffers:
            start = 0
            while start < len(buffer):
                try:
                    n = self._read(buffer[start:] if start else buffer, flags)
                except BlockingIOError:
                    if not n_bytes:
                        raise
                    return n_bytes, [], 0, None
                if n == 0:
                    return n_bytes, [], 0, None
                start += n
                n_bytes += n
        return n_bytes, [], 0, None

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send what the socket takes; takes MSG_DONTWAIT."""
        return self.sendmsg([memoryview(data)], (), flags)

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        self._flush(0)
        for start in range(0, len(view), _SENT_AT_ONCE):
            self._encrypt(view[start : start + _SENT_AT_ONCE])
            self._sock.sendall(self._outgoing.read())

    def sendmsg(self, buffers: Sequence[memoryview], ancillary: tuple[()] = (), flags: int = 0) -> int:
        """Send of the buffers what the socket takes; takes MSG_DONTWAIT. The rest must be offered again."""
        if self._unsent:
            self._flush(flags)
            if self._n_offered:
                sent, self._n_offered = self._n_offered, 0
                return sent
        data = _first(buffers)
        self._encrypt(data)
        made = self._outgoing.read()
        try:
            n = self._sock.send(made, flags)
        except BlockingIOError:
            n = 0
        if n < len(made):
            self._unsent, self._n_offered = memoryview(made)[n:], len(data)
            raise BlockingIOError
        return len(data)

    def shutdown(self, how: int) -> None:
        """End one direction, or both; safe from any thread."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    # Between OpenSSL and the socket ------------------------------------------------------------------------

    def _read(self, view: memoryview, flags: int) -> int:
        if self._peeked:
            view[:1] = self._peeked
            self._peeked = b""
            return 1
        timeout = None if flags else self._sock.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._incoming.pending and not self._tls.pending():
            self._fill(flags)
        while True:
            try:
                n: int = self._tls.read(len(view), view)  # type: ignore[assignment] # typeshed: bytes
                return n
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0
            except ssl.SSLError as error:
                raise tls_failure(error) from error
            if deadline is not None:  # a record that comes byte by byte wins no time
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(left)
            self._fill(flags)

    def _fill(self, flags: int) -> None:
        n = self._sock.recv_into(self._received, 0, flags)
        if n:
            self._incoming.write(self._received[:n])
        else:
            self._incoming.write_eof()

    def _encrypt(self, data: memoryview) -> None:
        try:
            done = self._tls.write(data)  # a record at most
            while done < len(data):
                done += self._tls.write(data[done:])
        except ssl.SSLError as error:
            raise tls_failure(error) from error

    def _flush(self, flags: int) -> None:
        """Send what is encrypted. Raises BlockingIOError while some is left."""
        if self._outgoing.pending:
            made = self._outgoing.read()
            self._unsent = memoryview(bytes(self._unsent) + made) if self._unsent else memoryview(made)
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent, flags) :]


def accept_tls(sock: socket.socket, context: ssl.SSLContext, seconds: float) -> TlsSocket:
    """Shake hands over a connection that was accepted, within ``seconds``. Raises OSError."""
    return _shake_hands(TlsSocket(sock, context, accepting=True), sock, seconds)


def dial_tls(sock: socket.socket, context: ssl.SSLContext, seconds: float) -> TlsSocket:
    """Shake hands over a connection that was dialled, within ``seconds``; closes it where that fails.

    Raises OSError.
    """
    try:
        return _shake_hands(TlsSocket(sock, context, accepting=False), sock, seconds)
    except BaseException:
        sock.close()
        raise


def _shake_hands(secured: TlsSocket, sock: socket.socket, seconds: float) -> TlsSocket:
    sock.settimeout(None)
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while not secured.shake_hands():
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise OSError(
                errno.EPROTO,
                f"no TLS handshake within {seconds:g} s; is it without --tls-cert?",
            )
    return secured


def _first(buffers: Sequence[memoryview]) -> memoryview:
    """Return the first bytes of the buffers, as many as are encrypted at once; the same for the same buffers."""
    if len(buffers) == 1 or len(buffers[0]) >= _SENT_AT_ONCE:
        return buffers[0][:_SENT_AT_ONCE]
    taken, n_bytes = [], 0
    for buffer in buffers:
        if n_bytes + len(buffer) > _SENT_AT_ONCE:
            break
        taken.append(buffer)
        n_bytes += len(buffer)
    return memoryview(b"".join(taken))
