"""The listener of a worker: which connections are accepted, which rejected at once, and how often that is logged.

The protocol has no passwords, so the address is all there is to go by.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from dllama_proto.endpoint import Endpoint
from dllama_worker.errors import MachineError
from dllama_worker.node.transport import PendingConnection
from dllama_worker.report import Report

__all__ = ["Listener", "Network"]

Network: TypeAlias = IPv4Network | IPv6Network

#: Log lines about rejected connections: so many at once, then one every so many seconds.
_LINES_AT_ONCE = 10
_SECONDS_A_LINE = 5.0

#: What accept says where this process or machine has no descriptor left; the connection stays in the queue.
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Listens on one address and accepts connections from the networks in ``allow``; if it is empty, from all."""

    def __init__(
        self,
        host: str,
        port: int,
        allow: Sequence[Network] = (),
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = (host, port)
        self._allow = tuple(allow)
        self._report = report or Report()
        self._quota = _Quota(clock)
        self._listener: socket.socket | None = None

    def listen(self) -> tuple[str, int]:
        """Start to listen, unless it does already; return the address. Raises MachineError."""
        if self._listener is None:
            host, port = self._address
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                self._listener = socket.create_server((host, port), family=family, backlog=64)
            except OSError as error:
                raise MachineError(
                    f"cannot listen on {Endpoint(host, port)}: {error.strerror or error}; "
                    "choose another --host or --port"
                ) from error
            # A connection may be gone between poll and accept: nobody must wait for the next one.
            self._listener.setblocking(False)
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when there is a connection to accept."""
        return self._listening().fileno()

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
        try:
            sock, address = self._listening().accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                time.sleep(0.1)  # there is nothing to do but to try again: not in a tight loop
            return None
        pending = PendingConnection(sock, str(address[0]), int(address[1]))
        if not self.permits(pending.host):
            self.reject(pending, "not in --allow")
            return None
        return pending

    def reject(self, pending: PendingConnection, reason: str) -> None:
        """Close a connection and log why, unless too many others were logged just now."""
        pending.close()
        if not self._quota.take():
            return
        unsaid = self._quota.skipped
        more = f" (and {unsaid} more, unsaid)" if unsaid else ""
        self._report.warning(
            "turned_away",
            f"turned away {pending.address}: {reason}{more}",
            address=pending.address,
            reason=reason,
            unsaid=unsaid,
        )

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

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
