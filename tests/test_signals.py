"""A command that is asked to end, whatever its main thread waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]
_TIMEOUT = 30.0

#: Its main thread blocks the signals, so that nothing cuts its wait short: as when one comes just before that.
_PROGRAM = """
import signal, threading
from dllama_worker.signals import on_end_signal

end = threading.Event()
with on_end_signal(end.set):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    print("waiting", flush=True)
    end.wait()
print("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_does_not_interrupt_the_wait_ends_it(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "waiting\n"
            program.send_signal(number)
            assert program.communicate(timeout=_TIMEOUT)[0] == "ended\n"
            assert program.returncode == 0
        finally:
            program.kill()
