"""Ctrl-C while a model writes: the text ends, and the cluster stays whole.

A forward that is broken off leaves the nodes at different places, and no conversation goes on from there. So
Ctrl-C is noted, and looked at between two forwards. A second one ends the command wherever it is.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Self

from dllama_proto.terminal import print_line

__all__ = ["Interrupt"]

#: Seconds after which a person is told that a forward is still waited for.
_TELL_AFTER = 0.5


class Interrupt:
    """A context manager in which Ctrl-C is noted, and asked for by a call: ``if interrupt(): …``.

    The second Ctrl-C raises KeyboardInterrupt, at any place. In another thread than the main one, which gets no
    signals, nothing is ever noted.
    """

    def __init__(self) -> None:
        self._noted = False
        self._before: object = None
        self._slow = threading.Timer(_TELL_AFTER, _tell_to_wait)
        self._slow.daemon = True

    def __call__(self) -> bool:
        """Tell whether Ctrl-C was pressed."""
        return self._noted

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slow.cancel()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type] # what signal() returned

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._noted:
            raise KeyboardInterrupt
        self._noted = True
        self._slow.start()


def _tell_to_wait() -> None:
    print_line("(stopping when the nodes are done with this token; Ctrl-C again stops at once)", sys.stderr)
