"""The links of a worker: it listens, a root greets it, the other workers join (C++ ``NnNetwork``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dllama_proto.events import Ack, AckKind
from dllama_proto.limits import Limits
from dllama_proto.messages import Greeting
from dllama_worker import timeouts
from dllama_worker.node.channel import Channel
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.transport import Connected, Link
from dllama_worker.report import Report
from dllama_worker.worker.farewell import Farewells
from dllama_worker.worker.handshake import PendingHandshake, accept_root
from dllama_worker.worker.latecomers import Latecomers
from dllama_worker.worker.link_watch import LinkWatch
from dllama_worker.worker.listener import Listener, Network
from dllama_worker.worker.mesh import join_mesh
from dllama_worker.worker.peer_candidates import PeerCandidates
from dllama_worker.worker.resolver import Resolver
from dllama_worker.worker.session_guard import SessionGuard
from dllama_worker.worker.wakeup import Wakeup

__all__ = ["NetworkClient"]


class NetworkClient:
    """Listens on one address and holds the links of one session at a time.

    ``root`` is the channel to the root, ``links`` every link by node index, the root's included; ``watch``
    waits for one of them and notices when another hangs up.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        allow: Sequence[Network] = (),
        limits: Limits | None = None,
        handshake_timeout: float = timeouts.HANDSHAKE,
        keepalive: float = timeouts.KEEPALIVE,
        tls: TlsContexts | None = None,
        report: Report | None = None,
    ) -> None:
        self._report = report or Report()
        self._listener = Listener(host, port, allow, self._report, tls=tls, tls_seconds=handshake_timeout)
        self._tls = tls
        self._limits = limits or Limits()
        self._handshake_timeout = handshake_timeout
        self._keepalive = keepalive
        self._stop = Wakeup()
        self._open: list[Link] = []
        self._resolver = Resolver()
        self._farewells = Farewells()
        self._session_guard: SessionGuard | None = None
        self._latecomers: Latecomers | None = None
        self._begun: list[PendingHandshake] = []
        self._candidates: PeerCandidates | None = None
        self.watch = LinkWatch(self._stop)
        #: Called in a thread of its own, time and again, once the root of the session has closed its connection.
        self.on_root_left: Callable[[], None] = _nothing
        self.root: Channel | None = None
        self.links: dict[int, Link] = {}

    def listen(self) -> tuple[str, int]:
        """Start to listen, unless it does already; return the address. Raises MachineError."""
        return self._listener.listen()

    def connect(self, on_root: Callable[[], None] = lambda: None) -> Greeting:
        """Wait for a root, shake hands, connect to every other worker; return the root's greeting.

        ``on_root`` is called once a root is there. Raises PeerLost, RemoteProtocolError (the root left or broke
        the protocol), Stopped.
        """
        self.listen()
        others: list[tuple[PendingHandshake, str]] = []
        handshake, greeting = accept_root(
            self._listener,
            self._stop,
            self._handshake_timeout,
            self._limits,
            lambda other, reason: others.append((other, reason)),
            self._begun,
        )
        self._begun = []
        self._latecomers = Latecomers(self._listener, self._limits, handshake.pending.address)
        for other, reason in others:
            self._latecomers.go_on(other, reason)
        link = self._keep(handshake.pending, handshake.pending.address)
        channel = self.root = Channel(link, handshake.connection)
        self._report.begin_session()
        on_root()
        self._report.info(
            "root_connected",
            f"the root is {link.name}: a cluster of {greeting.n_sockets + 1} nodes, "
            f"this is node {greeting.worker_index + 1}",
            root=link.name,
            nodes=greeting.n_sockets + 1,
            node_index=greeting.worker_index + 1,
        )
        link.set_deadline(self._handshake_timeout)
        channel.send(Ack(AckKind.GREETING))
        channel.expect(Ack)
        link.set_deadline(None)
        peers, self._candidates = join_mesh(
            greeting,
            self._listener,
            self.watch,
            self._resolver,
            self._handshake_timeout,
            self._keep,
            self._tls,
        )
        self.links = {0: link, **peers}
        self.watch.can_lose = self._candidates.release
        self._session_guard = SessionGuard(
            self._listener, link, self._candidates, self._latecomers, lambda: self.on_root_left()
        )
        return greeting

    def check_silent(self) -> None:
        """Just before the root learns that this node is ready: peers have said nothing yet. Raises PeerLost."""
        if self._candidates is not None:
            self._candidates.check_silent()

    def identify_peers(self, sends: Callable[[int], bool], seconds: float | None) -> None:
        """The first forward has begun, in which a node ``sends`` this one something or not: see who is who.

        Raises PeerLost where not all of those send within ``seconds``, Stopped.
        """
        if self._candidates is not None:
            self._candidates.identify_peers(sends, seconds)

    def disconnect(self, failure: BaseException | None = None) -> None:
        """End the session: close every link, leave new connections to the next :meth:`connect`.

        Where the root waits for an ack, it is told of the ``failure`` that ends the session, without a wait here.
        """
        if self._session_guard is not None:
            self._session_guard.close()
            self._session_guard = None
        self.on_root_left = _nothing
        if self._latecomers is not None:
            self._begun = self._latecomers.release()
            self._latecomers = None
        if self._candidates is not None:
            self._candidates.close()
            self._candidates = None
        self.watch.clear()
        if failure is not None and self.root is not None and self._farewells.say(self.root, failure):
            self._open.remove(self.root.link)
        for link in self._open:
            link.close()
        self._open.clear()
        self.links = {}
        self.root = None

    def interrupt(self) -> None:
        """Stop every wait in :meth:`connect` or on a link; safe from any thread."""
        self._stop.set()
        for link in tuple(self._open):
            link.shutdown()

    def close(self) -> None:
        """Stop listening and end the session; a root that is being told why the last one ended hears it out."""
        self.disconnect()
        for handshake in self._begun:
            handshake.pending.close()
        self._farewells.close()
        self._listener.close()
        self._stop.close()

    def _keep(self, connection: Connected, name: str) -> Link:
        link = Link(connection, name, self._keepalive)
        self._open.append(link)
        self.watch.add(link)
        return link


def _nothing() -> None:
    """Do nothing: no forward can run yet, or any more."""
