"""Everything a worker can be told, in one frozen record; the command line and code fill the same one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "WorkerOptions"]

#: Loopback, unlike the C++ worker: the protocol has no authentication, so the network is opened on purpose.
DEFAULT_HOST = "127.0.0.1"
#: The C++ program's port.
DEFAULT_PORT = 9990


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker listens, computes and reports.

    ``model`` is a local .m file to take weights from (or check the root's against). ``kernels`` is a
    preference list ``PLUGIN[:VARIANT],…``, empty for the best there is. ``handshake_timeout`` is how many
    seconds a client has for its greeting, ``mesh_timeout`` how many the cluster has to connect. ``trace`` is
    the file to write a timeline to. ``metrics_port`` is where ``/metrics`` and ``/healthz`` are served, 0 for any
    port, None for nowhere.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    n_threads: int = 1
    model: Path | None = None
    kernels: str = ""
    handshake_timeout: float = 10.0
    mesh_timeout: float = 60.0
    trace: Path | None = None
    metrics_host: str = DEFAULT_HOST
    metrics_port: int | None = None
