"""How long, and how often, the root tries to connect again to a lost worker (``--reconnect``)."""

from __future__ import annotations

import time
from collections.abc import Callable

from dllama_proto.errors import RemoteProtocolError
from dllama_worker.errors import PeerLost
from dllama_worker.report import Report

__all__ = ["reconnector"]

#: Seconds between two tries.
_INTERVAL = 0.5


def reconnector(
    seconds: float, hang_up: Callable[[], None], set_up: Callable[[], None], report: Report
) -> Callable[[PeerLost], None] | None:
    """Return what to call when a worker is lost, None where ``seconds`` is 0.

    It ends the session on all workers, since those that are left wait for the one that is gone, and sets it up
    again until that succeeds. Raises PeerLost or RemoteProtocolError, the last failure, when the time is over.
    """
    if not seconds:
        return None

    def reconnect(error: PeerLost) -> None:
        started = time.monotonic()
        report.warning(
            "reconnecting",
            f"lost {error.node}: {error.reason}; trying to connect again for {seconds:g} s (--reconnect)",
            node=error.node,
        )
        while True:
            hang_up()
            try:
                set_up()
            except (PeerLost, RemoteProtocolError):
                if time.monotonic() - started + _INTERVAL > seconds:
                    raise
                time.sleep(_INTERVAL)
                continue
            took = time.monotonic() - started
            report.info(
                "reconnected", f"all workers are ready again after {took:.1f} s", seconds=round(took, 3)
            )
            return

    return reconnect
