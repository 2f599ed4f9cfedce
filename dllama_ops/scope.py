"""What the ops of one node have in common: work that is done once for all of them, and the order to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator

from dllama_proto.exit_codes import ExitCode

__all__ = ["ForwardStopped", "NodeScope"]


class ForwardStopped(Exception):
    """The node was asked to stop, and did so between two ops. Who asked knows why, and reports it."""

    exit_code = ExitCode.DONE

    def __init__(self) -> None:
        super().__init__("the forward was stopped between two ops")


class NodeScope:
    """Shared by the contexts of a node's ops. Any thread may call :meth:`stop`, the rest is for the node's own."""

    def __init__(self) -> None:
        self._works: dict[Hashable, Callable[[], Iterator[None]]] = {}
        self._lock = threading.Lock()
        self._is_stopped = False
        self._actions: list[Callable[[], None]] = []

    def once(self, key: Hashable, work: Callable[[], Iterator[None]]) -> None:
        """Have work done once all kernels are made; of several with the same key only the last is done.

        That is what doing each of them in turn would leave behind, where all write the same memory.
        """
        self._works[key] = work

    def shared_work(self) -> Iterator[None]:
        """Do what :meth:`once` was told, a piece at a time: between two of them the caller may look around."""
        while self._works:
            work = self._works.pop(next(iter(self._works)))
            yield from work()

    def on_stop(self, action: Callable[[], None]) -> None:
        """Have ``action`` called, in any thread, when the node is to stop; at once where it is already."""
        with self._lock:
            if not self._is_stopped:
                self._actions.append(action)
                return
        action()

    def stop(self) -> None:
        """End the forward that runs, if one does, between two ops, and let no other begin."""
        with self._lock:
            self._is_stopped = True
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def check(self) -> None:
        """Called between two ops. Raises ForwardStopped after :meth:`stop`."""
        if self._is_stopped:
            raise ForwardStopped
