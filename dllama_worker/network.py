"""A worker's place in the network: it listens, a root greets it, the other workers join (C++ ``NnNetwork``)."""

from __future__ import annotations

import select
import socket

from dllama_proto.connection import Connection, Role
from dllama_proto.events import Ack, AckKind
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_worker.channel import Channel
from dllama_worker.errors import MachineError, PeerLost
from dllama_worker.mesh import join_mesh
from dllama_worker.report import Report
from dllama_worker.transport import Link

__all__ = ["NetworkClient", "Stopped"]


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


class NetworkClient:
    """Listens on one address and holds the links of one session at a time.

    ``root`` is the channel to the root, ``links`` every link by node index, the root's included.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        handshake_timeout: float = 10.0,
        mesh_timeout: float = 60.0,
        report: Report | None = None,
    ) -> None:
        self._address = (host, port)
        self._limits = limits or Limits()
        self._handshake_timeout = handshake_timeout
        self._mesh_timeout = mesh_timeout
        self._report = report or Report()
        self._listener: socket.socket | None = None
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._open: list[Link] = []
        self.root: Channel | None = None
        self.links: dict[int, Link] = {}

    def listen(self) -> tuple[str, int]:
        """Start to listen, unless it does already; return the address. Raises MachineError."""
        if self._listener is None:
            host, port = self._address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                self._listener = socket.create_server((host, port), family=family, backlog=64)
            except OSError as error:
                raise MachineError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
                ) from error
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def connect(self) -> Greeting:
        """Wait for a root, shake hands, connect to every other worker; return the root's greeting.

        Raises PeerLost, RemoteProtocolError (whoever called was no root, or left), Stopped.
        """
        self.listen()
        link = self._accept()
        self._keep(link)
        channel = self.root = Channel(link, Connection(Role.WORKER, limits=self._limits))
        # A stranger who says nothing must not keep the root out.
        link.set_timeout(self._handshake_timeout)
        greeting = channel.expect(Greeting)
        self._report.begin_session()
        self._report.info(
            "root_connected",
            f"the root is {link.name}: a cluster of {greeting.n_sockets + 1} nodes, "
            f"this is node {greeting.worker_index + 1}",
            root=link.name,
            nodes=greeting.n_sockets + 1,
            node_index=greeting.worker_index + 1,
        )
        channel.send(Ack(AckKind.GREETING))
        link.set_timeout(self._mesh_timeout)
        channel.expect(Ack)
        link.set_timeout(None)
        listener = self._listener
        if listener is None:
            raise Stopped
        peers = join_mesh(greeting, listener, self._mesh_timeout, self._turned_away, self._keep)
        self.links = {0: link, **peers}
        return greeting

    def disconnect(self) -> None:
        """End the session: close every link, go on listening."""
        for link in self._open:
            link.close()
        self._open.clear()
        self.links = {}
        self.root = None

    def interrupt(self) -> None:
        """Make whoever waits in :meth:`connect` or on a link stop waiting; safe from any thread."""
        self._wake_sender.send(b"\0")
        for link in tuple(self._open):
            link.shutdown()

    def close(self) -> None:
        """Stop listening and end the session."""
        self.disconnect()
        for sock in (self._listener, self._wake_receiver, self._wake_sender):
            if sock is not None:
                sock.close()
        self._listener = None

    def _accept(self) -> Link:
        listener = self._listener
        if listener is None:
            raise Stopped
        readable, _, _ = select.select([listener, self._wake_receiver], [], [])
        if self._wake_receiver in readable:
            raise Stopped
        try:
            sock, address = listener.accept()
        except OSError as error:  # the caller left between the two calls
            raise PeerLost("a caller", error.strerror or str(error)) from error
        return Link(sock, f"{address[0]}:{address[1]}")

    def _keep(self, link: Link) -> None:
        self._open.append(link)

    def _turned_away(self, address: str, reason: str) -> None:
        self._report.warning(
            "turned_away", f"turned away {address}: {reason}", address=address, reason=reason
        )
