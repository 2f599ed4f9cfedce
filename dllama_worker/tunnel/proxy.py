"""Passing bytes on between a plain connection and one with TLS, both ways at once.

One thread a connection: OpenSSL's state belongs to one thread at a time. What one end sends is taken only as fast
as the other takes it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import cannot_listen, reason_of
from dllama_worker.node.socket_options import keep_alive, send_at_once
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.tls_socket import TlsSocket, accept_tls, dial_tls

__all__ = ["TunnelServer"]

_CHUNK = 1 << 17

#: Connections at once: those without a certificate are out of their place after the time for a handshake.
_MAX_CONNECTIONS = 512


class TunnelServer:
    """Listens at one address and passes every connection on to another; one of the two ends has TLS.

    ``tell`` takes a line for a person, from any thread. Raises MachineError where it cannot listen.
    """

    def __init__(
        self,
        listen: Endpoint,
        to: Endpoint,
        contexts: TlsContexts,
        tell: Callable[[str], None],
        *,
        accepts_tls: bool,
    ) -> None:
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        try:
            self._listener = socket.create_server((listen.host, listen.port), family=family, backlog=64)
        except OSError as error:
            raise cannot_listen(str(listen), error, "choose another port") from error
        self.port: int = self._listener.getsockname()[1]
        self._to = to
        self._contexts = contexts
        self._tell = tell
        self._accepts_tls = accepts_tls
        self._sockets: set[socket.socket | TlsSocket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="tunnel", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off everything."""
        with contextlib.suppress(OSError):  # a thread in accept() wakes by shutdown, not by close
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, address = self._listener.accept()
            except OSError:
                return
            who = str(Endpoint.of_socket(address))
            with self._lock:
                is_full = len(self._sockets) >= 2 * _MAX_CONNECTIONS
                if not is_full:
                    self._sockets.add(near)
            if is_full:
                self._tell(f"rejected {who}: {_MAX_CONNECTIONS} connections are open")
                near.close()
                continue
            threading.Thread(target=self._serve, args=(near, who), daemon=True).start()

    def _serve(self, near: socket.socket, who: str) -> None:
        opened: list[socket.socket | TlsSocket] = [near]
        try:
            self._pass_on(near, who, opened)
        finally:
            with self._lock:
                self._sockets.difference_update(opened)
            for sock in opened:
                sock.close()

    def _pass_on(self, near: socket.socket, who: str, opened: list[socket.socket | TlsSocket]) -> None:
        accepted: socket.socket | TlsSocket = near
        if self._accepts_tls:
            try:
                accepted = accept_tls(near, self._contexts.accepting, timeouts.DIAL)
            except OSError as error:
                self._tell(f"rejected {who}: {reason_of(error)}")
                return
        try:
            far = socket.create_connection((self._to.host, self._to.port), timeouts.DIAL)
            opened.append(far)
            far.settimeout(None)
            with self._lock:
                self._sockets.add(far)
            dialled = far if self._accepts_tls else dial_tls(far, self._contexts.dialling, timeouts.DIAL)
        except OSError as error:
            self._tell(f"cannot connect {who} to {self._to}: {reason_of(error)}")
            return
        for sock in (near, far):
            send_at_once(sock)
            keep_alive(sock, timeouts.KEEPALIVE)
        _pump(accepted, dialled)


def _pump(one: socket.socket | TlsSocket, other: socket.socket | TlsSocket) -> None:
    """Pass everything on, both ways, until both ends have ended or one is broken."""
    flows = [_Flow(one, other), _Flow(other, one)]
    try:
        for flow in flows:
            flow.move()  # what came with the handshake is seen by no poller
        while running := [flow for flow in flows if not flow.is_over]:
            poll = select.poll()
            wanted: dict[int, int] = {}
            for flow in running:
                sock, event = flow.waits_for()
                wanted[sock.fileno()] = wanted.get(sock.fileno(), 0) | event
            for fd, events in wanted.items():
                poll.register(fd, events)
            poll.poll()
            for flow in running:
                flow.move()
    except OSError:
        return  # an end is gone: both are closed


class _Flow:
    """What one end says to the other; ``held`` is received and not yet sent."""

    def __init__(self, source: socket.socket | TlsSocket, target: socket.socket | TlsSocket) -> None:
        self._source, self._target = source, target
        self._memory = memoryview(bytearray(_CHUNK))
        self._held = self._memory[:0]
        self.is_over = False

    def waits_for(self) -> tuple[socket.socket | TlsSocket, int]:
        """Return what to poll next, and for what."""
        return (self._target, select.POLLOUT) if self._held else (self._source, select.POLLIN)

    def move(self) -> None:
        """Receive and send until a socket says that it must wait. Raises OSError."""
        try:
            while True:
                while self._held:
                    sent = self._target.sendmsg([self._held], (), socket.MSG_DONTWAIT)
                    self._held = self._held[sent:]
                n = self._source.recvmsg_into([self._memory], 0, socket.MSG_DONTWAIT)[0]
                if not n:
                    self.is_over = True
                    self._target.shutdown(socket.SHUT_WR)
                    return
                self._held = self._memory[:n]
        except BlockingIOError:
            return
