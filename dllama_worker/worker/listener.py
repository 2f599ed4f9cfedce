"""The listener of a worker: which connections are accepted, which rejected at once, and how often that is logged.

The protocol has no passwords: without TLS the address is all there is to go by.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from dllama_proto.endpoint import Endpoint
from dllama_worker import timeouts
from dllama_worker.errors import cannot_listen
from dllama_worker.node.tls import TlsContexts
from dllama_worker.node.transport import PendingConnection
from dllama_worker.report import Report
from dllama_worker.worker.tls_acceptor import TlsAcceptor

__all__ = ["Listener", "Network"]

Network: TypeAlias = IPv4Network | IPv6Network

#: Connections that wait in the kernel to be accepted. In a flood an honest one waits there for its turn; what does
#: not fit is dropped, and comes again after a second.
_BACKLOG = 1024

#: Log lines about rejected connections: so many at once, then one every so many seconds.
_LINES_AT_ONCE = 10
_SECONDS_A_LINE = 5.0

#: What accept says where this process or machine has no descriptor left; the connection stays in the queue.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Listens on one address and accepts connections from the networks in ``allow``; if it is empty, from all.

    With ``tls`` they are accepted once their handshake is complete, for which each has ``tls_seconds``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        allow: Sequence[Network] = (),
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        tls: TlsContexts | None = None,
        tls_seconds: float = timeouts.HANDSHAKE,
    ) -> None:
        self._address = (host, port)
        self._allow = tuple(allow)
        self._report = report or Report()
        self._quota = _Quota(clock)
        self._tls = tls
        self._tls_seconds = tls_seconds
        self._acceptor: TlsAcceptor | None = None
        self._listener: socket.socket | None = None

    def listen(self) -> tuple[str, int]:
        """Start to listen, unless it does already; return the address. Raises MachineError."""
        if self._listener is None:
            host, port = self._address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
            except OSError as error:
                advice = "choose another --host or --port"
                raise cannot_listen(str(Endpoint(host, port)), error, advice) from error
            # A connection may be gone between poll and accept: nobody must wait for the next one.
            self._listener.setblocking(False)
            if self._tls is not None:
                self._acceptor = TlsAcceptor(
                    self._listener,
                    self._tls.accepting,
                    self._tls_seconds,
                    self._accept,
                    lambda host, port, reason: self._tell_rejected(str(Endpoint(host, port)), reason),
                )
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when there is a connection to accept."""
        return self._listening().fileno() if self._acceptor is None else self._acceptor.fileno()

    def permits(self, host: str) -> bool:
        """Tell whether an address may connect to this node, or be connected to."""
        if not self._allow:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._allow)

    def accept(self) -> PendingConnection | None:
        """Return the next connection; None where there is none, or where it was rejected. Never waits."""
        accepted = self._accept() if self._acceptor is None else self._acceptor.take()
        return None if accepted is None else PendingConnection(*accepted)

    def reject(self, pending: PendingConnection, reason: str, last: bytes = b"") -> None:
        """Close a connection, ``last`` sent before, and log why, unless too many others were logged just now."""
        pending.close(last)
        self._tell_rejected(pending.address, reason)

    def close(self) -> None:
        """Stop listening."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _accept(self) -> tuple[socket.socket, str, int] | None:
        """Return the next connection and its address; None where there is none, or where it was rejected."""
        try:
            sock, address = self._listening().accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                time.sleep(0.1)  # there is nothing to do but to try again: not in a tight loop
            return None
        host, port = str(address[0]), int(address[1])
        if not self.permits(host):
            self.reject(PendingConnection(sock, host, port), "not in --allow")
            return None
        return sock, host, port

    def _tell_rejected(self, address: str, reason: str) -> None:
        if not self._quota.take():
            return
        unsaid = self._quota.skipped
        more = f" ({unsaid} more rejected since the last such line)" if unsaid else ""
        self._report.warning(
            "turned_away",
            f"rejected {address}: {reason}{more}",
            address=address,
            reason=reason,
            unsaid=unsaid,
        )

    def _listening(self) -> socket.socket:
        if self._listener is None:
            raise RuntimeError("the listener is not open: call listen first")
        return self._listener


class _Quota:
    """A token bucket of log lines; ``skipped`` is how many were held back before the one just granted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = float(_LINES_AT_ONCE)
        self._at = clock()
        self._waiting = 0
        self.skipped = 0

    def take(self) -> bool:
        now = self._clock()
        self._tokens = min(_LINES_AT_ONCE, self._tokens + (now - self._at) / _SECONDS_A_LINE)
        self._at = now
        if self._tokens < 1:
            self._waiting += 1
            return False
        self._tokens -= 1
        self.skipped, self._waiting = self._waiting, 0
        return True
