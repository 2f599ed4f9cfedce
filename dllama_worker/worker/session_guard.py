"""While a session runs, new connections are rejected at once instead of being left in the queue.

Except those that may be a peer's, until the first forward: they wait
(:mod:`dllama_worker.worker.peer_candidates`). Once its root has hung up a session is as good as over. Who
connects then may well be the next root: that connection stays in the queue.
"""

from __future__ import annotations

import select
import threading

from dllama_worker.node.transport import Link
from dllama_worker.worker.link_watch import HANG_UP
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import PeerCandidates
from dllama_worker.worker.wakeup import Wakeup

__all__ = ["SessionGuard"]

#: Seconds between two looks at the connections that wait.
_LOOK_INTERVAL = 0.25


class SessionGuard:
    """A thread that accepts and rejects, from the mesh's completion to the end of the session with ``root``."""

    def __init__(self, listener: Listener, root: Link, candidates: PeerCandidates) -> None:
        self._listener = listener
        self._root = root
        self._candidates = candidates
        self._end = Wakeup()
        self._thread = threading.Thread(target=self._run, name="session_guard", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._end.fileno(), select.POLLIN)
        poll.register(self._root.fileno(), HANG_UP)
        poll.register(self._listener.fileno(), select.POLLIN)
        some_wait = False
        while True:
            ready = [fd for fd, _ in poll.poll(_LOOK_INTERVAL * 1000 if some_wait else None)]
            if ready and ready != [self._listener.fileno()]:
                return
            pending = self._listener.accept() if ready else None
            if pending is not None and not self._candidates.offer(pending):
                self._listener.reject(pending, "this worker is in a session with a root")
            some_wait = self._candidates.reject_early()

    def close(self) -> None:
        """End the thread; connections stay in the queue from now on, for whoever accepts next."""
        self._end.set()
        self._thread.join()
        self._end.close()
