"""How one thread ends another thread's wait: a descriptor that becomes readable."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["Wakeup"]


class Wakeup:
    """Becomes readable when it is set, and stays so."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, for pollers."""
        return self._receiver.fileno()

    def set(self) -> None:
        """Make it readable; safe from any thread, also once it is closed."""
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def close(self) -> None:
        """Close it; nobody may poll it any more."""
        self._receiver.close()
        self._sender.close()
