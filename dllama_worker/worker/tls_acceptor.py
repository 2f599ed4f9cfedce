"""TLS before anything else: a thread shakes hands with all who connect, and hands on who has a certificate.

So whoever accepts connections meets nodes of the cluster only, and nobody's slow handshake delays another's.
Who is turned away hears why: by an alert of TLS, or by a refusal of the protocol where plain bytes came.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dllama_proto.codec import encode
from dllama_worker import timeouts
from dllama_worker.errors import reason_of
from dllama_worker.node.eviction import first_to_go
from dllama_worker.node.tls import NotTls
from dllama_worker.node.tls_socket import TlsSocket
from dllama_worker.worker.farewell import refusal
from dllama_worker.worker.wakeup import Wakeup

__all__ = ["Admitted", "TlsAcceptor"]

#: The maximum of handshakes at the same time. When a new connection comes beyond it, one is turned away.
_MAX_HANDSHAKES = 64

_TO_PLAIN = "this worker speaks TLS only: start the root with --tls-cert, --tls-key and --tls-ca"

Admitted = tuple[TlsSocket, str, int]
"""A connection whose handshake is complete, and where it is from: address and port."""


@dataclass(slots=True, eq=False)
class _Caller:
    sock: socket.socket
    host: str
    port: int
    deadline: float
    secured: TlsSocket
    is_over: bool = False


class TlsAcceptor:
    """Accepts from ``listener``, which stays the caller's; ``fileno`` is readable while somebody is admitted.

    ``accept`` returns the next connection, None for none; ``turned_away`` is told who, and why. A handshake has
    ``seconds``.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        seconds: float,
        accept: Callable[[], tuple[socket.socket, str, int] | None],
        turned_away: Callable[[str, int, str], None],
    ) -> None:
        self._listener = listener
        self._context = context
        self._seconds = seconds
        self._accept = accept
        self._turned_away = turned_away
        self._callers: dict[int, _Caller] = {}
        self._admitted: deque[Admitted] = deque()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._end = Wakeup()
        self._thread = threading.Thread(target=self._run, name="tls_acceptor", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor, readable while there is somebody to take."""
        return self._bell.fileno()

    def take(self) -> Admitted | None:
        """Return the next who is admitted; None for nobody. Never waits."""
        with contextlib.suppress(BlockingIOError):
            if self._bell.recv(1):
                return self._admitted.popleft()
        return None

    def close(self) -> None:
        """Shut it on everybody."""
        self._end.set()
        self._thread.join()
        for caller in self._callers.values():
            caller.sock.close()
        for secured, _, _ in self._admitted:
            secured.close()
        self._end.close()
        self._bell.close()
        self._rope.close()

    def _run(self) -> None:
        while True:
            poll = select.poll()
            for fd in (self._end.fileno(), self._listener.fileno(), *self._callers):
                poll.register(fd, select.POLLIN)
            next_deadline = min((caller.deadline for caller in self._callers.values()), default=None)
            left = None if next_deadline is None else max(0.0, next_deadline - time.monotonic()) * 1000 + 1
            ready = [fd for fd, _ in poll.poll(left)]
            if self._end.fileno() in ready:
                return
            for fd in ready:
                if fd == self._listener.fileno():
                    self._let_in()
                elif fd in self._callers:
                    self._go_on(self._callers[fd])
            now = time.monotonic()
            for caller in [caller for caller in self._callers.values() if caller.deadline <= now]:
                self._turn_away(caller, f"no TLS handshake within {self._seconds:g} s")
                self._drop(caller)

    def _let_in(self) -> None:
        accepted = self._accept()
        if accepted is None:
            return
        sock, host, port = accepted
        sock.settimeout(None)
        secured = TlsSocket(sock, self._context, accepting=True)
        self._callers[sock.fileno()] = _Caller(sock, host, port, time.monotonic() + self._seconds, secured)
        if len(self._callers) > _MAX_HANDSHAKES:
            gone = first_to_go(
                self._callers.values(), lambda one: one.host, lambda one: one.secured.has_heard
            )
            self._turn_away(gone, f"{_MAX_HANDSHAKES} others wait who have shown no certificate")
            self._drop(gone)

    def _go_on(self, caller: _Caller) -> None:
        """Take what has come. Who has been turned away is heard out: closing might destroy the reason."""
        try:
            if caller.is_over:
                if not caller.sock.recv(1 << 16, socket.MSG_DONTWAIT):
                    self._drop(caller)
                return
            if caller.secured.shake_hands():
                del self._callers[caller.sock.fileno()]
                self._admitted.append((caller.secured, caller.host, caller.port))
                self._rope.send(b"\0")
        except BlockingIOError:
            return
        except NotTls as error:
            self._turn_away(caller, reason_of(error), encode(refusal(_TO_PLAIN)))
        except OSError as error:
            self._turn_away(caller, reason_of(error))

    def _turn_away(self, caller: _Caller, reason: str, last: bytes = b"") -> None:
        """Say why, and hear out what still comes for a moment."""
        if caller.is_over:
            return
        caller.is_over = True
        caller.deadline = time.monotonic() + timeouts.FAREWELL_DRAIN
        self._turned_away(caller.host, caller.port, reason)
        with contextlib.suppress(OSError):
            if last:
                caller.sock.send(last, socket.MSG_DONTWAIT)
            caller.sock.shutdown(socket.SHUT_WR)

    def _drop(self, caller: _Caller) -> None:
        self._callers.pop(caller.sock.fileno(), None)
        caller.sock.close()
