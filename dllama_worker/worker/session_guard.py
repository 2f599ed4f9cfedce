"""While a session runs, whoever calls is turned away at once, not left in a queue.

But for those who may be a peer of the session, until the first forward: they wait
(:mod:`dllama_worker.worker.peer_candidates`).
Once its root has hung up a session is as good as over: who calls then may well be the next root, and waits.
"""

from __future__ import annotations

import select
import socket
import threading

from dllama_worker.node.transport import Link
from dllama_worker.worker.link_watch import HANG_UP
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import PeerCandidates

__all__ = ["SessionGuard"]

#: How often to look after those who wait.
_LOOK_SECONDS = 0.25


class SessionGuard:
    """A thread that stands at the listener from the mesh's completion to the end of the session with ``root``."""

    def __init__(self, listener: Listener, root: Link, seats: PeerCandidates) -> None:
        self._listener = listener
        self._root = root
        self._seats = seats
        self._ended, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._stand, name="session_guard", daemon=True)
        self._thread.start()

    def _stand(self) -> None:
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        poll.register(self._root.sock, HANG_UP)
        poll.register(self._listener.sock, select.POLLIN)
        somebody_waits = False
        while True:
            ready = [fd for fd, _ in poll.poll(_LOOK_SECONDS * 1000 if somebody_waits else None)]
            if ready and ready != [self._listener.sock.fileno()]:
                return
            if ready and (caller := self._listener.accept()) is not None and not self._seats.offer(caller):
                self._listener.reject(caller, "this worker is in a session with a root")
            somebody_waits = self._seats.reject_early()

    def dismiss(self) -> None:
        """End the thread; who calls from now on waits to be listened to."""
        self._end.send(b"\0")
        self._thread.join()
        self._ended.close()
        self._end.close()
