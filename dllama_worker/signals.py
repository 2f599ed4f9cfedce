"""How a command notices that it is asked to end, whatever its main thread waits for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["on_end_signal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_end_signal(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` for each SIGTERM and Ctrl-C that comes within the context, in a thread of its own.

    A handler in Python runs when the main thread comes back from what it waits in. A signal that comes just before
    a system call does not cut that call short, and the main thread may then wait for ever; this thread is woken by
    the signal itself, through a pipe. Afterwards such signals are ignored: the process ends already. Only for the
    main thread.
    """
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    thread = threading.Thread(target=_wait, args=(receiver, action), name="signals", daemon=True)
    for number in _SIGNALS:
        signal.signal(number, _noted)
    before = signal.set_wakeup_fd(sender)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(sender)
        thread.join()
        os.close(receiver)


def _wait(receiver: int, action: Callable[[], None]) -> None:
    while number := os.read(receiver, 1):
        if number[0] in _SIGNALS:
            action()


def _noted(signum: int, frame: FrameType | None) -> None:
    """Do nothing: without a handler in Python, the process would end."""
