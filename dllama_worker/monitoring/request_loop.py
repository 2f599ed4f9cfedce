"""Small HTTP exchanges of many clients in one thread: a slow one costs nobody else anything.

Each has a total of seconds, whatever it sends. Where all places are taken, :func:`first_to_go` says who makes
room. A request is its head only: what would follow is dropped.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dllama_worker.node.eviction import first_to_go

__all__ = ["Answer", "RequestLoop"]

_MAX_CLIENTS = 64
_MAX_HEAD = 8192
_CHUNK = 4096
_END_OF_HEAD = b"\r\n\r\n"
#: Where this process has no descriptor left there is nothing to do but to try again: not in a tight loop.
_RETRY = 0.1

Answer = Callable[[bytes, tuple[str, int]], bytes]
"""Takes the head of a request and who sent it; returns all bytes of the answer."""


@dataclass(slots=True, eq=False)
class _Client:
    sock: socket.socket
    host: str
    port: int
    deadline: float
    head: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class RequestLoop:
    """Serves ``listener``, which it closes at the end; an exchange has ``seconds`` from its connection on."""

    def __init__(self, listener: socket.socket, answer: Answer, seconds: float) -> None:
        self._listener = listener
        self._answer = answer
        self._seconds = seconds
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = socket.socketpair()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._ended, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        try:
            while not self._turn():
                self._drop_late()
        finally:
            for client in tuple(self._clients.values()):
                self._drop(client)
            self._selector.close()
            self._listener.close()
            self._ended.close()

    def stop(self) -> None:
        """Make :meth:`run` return soon; from any thread."""
        self._end.close()

    def _turn(self) -> bool:
        """Wait for something to do, and do it; tell whether this is the end."""
        deadline = min((client.deadline for client in self._clients.values()), default=None)
        ready = self._selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
        for key, _ in ready:
            if key.fileobj is self._ended:
                return True
            if key.fileobj is self._listener:
                self._accept()
            elif (client := self._clients.get(key.fd)) is not None:
                self._go_on(client)
        return False

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            time.sleep(_RETRY)
            return
        sock.setblocking(False)
        client = _Client(sock, str(address[0]), int(address[1]), time.monotonic() + self._seconds)
        self._clients[sock.fileno()] = client
        self._selector.register(sock, selectors.EVENT_READ)
        if len(self._clients) > _MAX_CLIENTS:
            clients = self._clients.values()
            self._drop(first_to_go(clients, lambda client: client.host, lambda client: bool(client.head)))

    def _go_on(self, client: _Client) -> None:
        try:
            if client.answer is None:
                self._read(client)
            elif client.answer:
                self._write(client, client.answer)
            elif not client.sock.recv(_CHUNK):  # it has the answer, and has closed
                self._drop(client)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.sock.recv(_CHUNK)
        client.head += data
        end = client.head.find(_END_OF_HEAD)
        if end >= 0:
            head = bytes(client.head[: end + len(_END_OF_HEAD)])
            client.answer = memoryview(self._answer(head, (client.host, client.port)))
            self._selector.modify(client.sock, selectors.EVENT_WRITE)
        elif not data or len(client.head) > _MAX_HEAD:
            self._drop(client)

    def _write(self, client: _Client, answer: memoryview) -> None:
        client.answer = answer[client.sock.send(answer) :]
        if not client.answer:
            client.sock.shutdown(socket.SHUT_WR)
            self._selector.modify(client.sock, selectors.EVENT_READ)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for client in [client for client in self._clients.values() if client.deadline <= now]:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        self._selector.unregister(client.sock)
        with contextlib.suppress(OSError):
            client.sock.close()
