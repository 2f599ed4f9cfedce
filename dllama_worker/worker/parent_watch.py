"""A worker that another program starts ends with it, however that program ends: its standard input tells."""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["end_with_standard_input"]

_STANDARD_INPUT = 0
_CHUNK = 4096


def end_with_standard_input() -> None:
    """Send this process SIGTERM once its standard input is at an end, or at once if it has none.

    The other end of the pipe closes with the program that holds it, also where that is killed and can't end anyone
    itself. What arrives until then is not looked at.
    """
    threading.Thread(target=_watch, name="parent-watch", daemon=True).start()


def _watch() -> None:
    try:
        while os.read(_STANDARD_INPUT, _CHUNK):
            pass
    except OSError:
        pass  # closed: nobody is there to end it
    os.kill(os.getpid(), signal.SIGTERM)
