"""Passing bytes on between two sockets, both ways at once, and telling a recorder.

One thread a direction, so that neither can hold up the other: it receives, records, sends. Recording comes
before sending, so that no answer is ever recorded before its question.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dllama_proto.dissect.recording import RecordedConnection
from dllama_proto.endpoint import Endpoint
from dllama_proto.messages import Peer
from dllama_worker import timeouts
from dllama_worker.errors import cannot_listen
from dllama_worker.tap.peers import PeerRewriter

__all__ = ["Route", "TapServer"]

#: Received at once; large, for weights.
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Route:
    """Where to listen, and where to what comes is passed on."""

    listen: Endpoint
    to: Endpoint


class TapServer:
    """Listens for one route and passes every connection on; ``record`` takes bytes of a pcapng file.

    ``record`` is called by several threads, one at a time. ``tell`` takes a line for a person.
    """

    def __init__(
        self,
        route: Route,
        record: Callable[[bytes], None],
        tell: Callable[[str], None],
        peers: Mapping[Peer, Peer],
    ) -> None:
        """Listen. Raises MachineError."""
        self.route = route
        self._record, self._tell, self._peers = record, tell, peers
        host, port = route.listen.host, route.listen.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise cannot_listen(str(route.listen), error, "choose another --listen") from error
        #: Where it listens.
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off everything."""
        # A thread in accept() wakes by shutdown, not by close.
        with contextlib.suppress(OSError):
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
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        to = self.route.to
        try:
            server = socket.create_connection((to.host, to.port), timeouts.TAP_DIAL)
            server.settimeout(None)
        except OSError as error:
            self._tell(f"cannot connect to {to}: {error.strerror or error}")
            client.close()
            return
        with self._lock:
            self._sockets |= {client, server}
        dialler, listener = (
            Endpoint.of_socket(client.getpeername()),
            Endpoint.of_socket(client.getsockname()),
        )
        recorded = RecordedConnection(dialler, listener)
        self._record(recorded.opened(time.time_ns()))
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there = _Pump(client, server, recorded, self._record, PeerRewriter(self._peers))
        back = _Pump(server, client, recorded, self._record, None)
        thread = threading.Thread(target=there.pump, daemon=True)
        thread.start()
        back.pump()
        thread.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()


class _Pump:
    """What one end says to the other."""

    def __init__(
        self,
        source: socket.socket,
        target: socket.socket,
        recorded: RecordedConnection,
        record: Callable[[bytes], None],
        rewriter: PeerRewriter | None,
    ) -> None:
        self._source, self._target = source, target
        self._recorded, self._record = recorded, record
        self._rewriter = rewriter
        self._from_dialler = rewriter is not None

    def pump(self) -> None:
        """Pass everything on until an end goes away, then tell the other."""
        memory = memoryview(bytearray(_CHUNK))
        try:
            while n := self._source.recv_into(memory):
                data: bytes | memoryview = memory[:n]
                if self._rewriter is not None:
                    data = self._rewriter.pass_on(data)
                self._send(data)
            if self._rewriter is not None:
                self._send(self._rewriter.rest())
            self._record(self._recorded.closed(time.time_ns(), from_dialler=self._from_dialler))
            with contextlib.suppress(OSError):
                self._target.shutdown(socket.SHUT_WR)
        except OSError:
            self._record(self._recorded.aborted(time.time_ns(), from_dialler=self._from_dialler))
            for sock in (self._source, self._target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes | memoryview) -> None:
        if data:
            self._record(self._recorded.data(time.time_ns(), data, from_dialler=self._from_dialler))
            self._target.sendall(data)
