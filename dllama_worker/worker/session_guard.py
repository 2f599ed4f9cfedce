"""While a session runs, new connections are rejected instead of being left in the queue.

Those that greet as roots are told why (:mod:`dllama_worker.worker.latecomers`).

Those that may be a peer's are an exception until the first forward: they wait
(:mod:`dllama_worker.worker.peer_candidates`). Once its root has closed the connection, a session is nearly
over, and a new connection may be the next root's: it stays in the queue.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

from dllama_worker.node.transport import Link
from dllama_worker.worker.latecomers import Latecomers
from dllama_worker.worker.link_watch import HANG_UP
from dllama_worker.worker.listener import Listener
from dllama_worker.worker.peer_candidates import PeerCandidates
from dllama_worker.worker.wakeup import Wakeup

__all__ = ["SessionGuard"]

#: Seconds between two looks at the connections that wait.
_LOOK_INTERVAL = 0.25


class SessionGuard:
    """A thread that accepts and rejects, from the mesh's completion to the end of the session with ``root``.

    Once the root has closed the connection, ``on_root_left`` is called in it time and again until that end.
    """

    def __init__(
        self,
        listener: Listener,
        root: Link,
        candidates: PeerCandidates,
        latecomers: Latecomers,
        on_root_left: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._root = root
        self._candidates = candidates
        self._latecomers = latecomers
        self._on_root_left = on_root_left
        self._end = Wakeup()
        self._thread = threading.Thread(target=self._run, name="session_guard", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        some_wait = any(self._latecomers)
        while True:
            ready = self._ready(_LOOK_INTERVAL if some_wait else None)
            if self._end.fileno() in ready:
                return
            if self._root.fileno() in ready:
                self._wait_for_end()
                return
            for fd in ready:
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._latecomers.read(fd)
            self._latecomers.reject_late()
            some_wait = self._candidates.reject_early(self._latecomers.add) or any(self._latecomers)

    def _ready(self, seconds: float | None) -> list[int]:
        poll = select.poll()
        poll.register(self._root.fileno(), HANG_UP)
        for fd in (self._end.fileno(), self._listener.fileno(), *self._latecomers):
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]

    def _wait_for_end(self) -> None:
        poll = select.poll()
        poll.register(self._end.fileno(), select.POLLIN)
        while not poll.poll(_LOOK_INTERVAL * 1000):
            self._on_root_left()

    def _accept(self) -> None:
        pending = self._listener.accept()
        if pending is not None and not self._candidates.offer(pending):
            self._latecomers.add(pending)

    def close(self) -> None:
        """End the thread; connections stay in the queue from now on, until something accepts them again."""
        self._end.set()
        self._thread.join()
        self._end.close()
