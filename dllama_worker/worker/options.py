"""Everything a worker can be told, in one frozen record; the command line and code fill the same one."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from dllama_worker import timeouts
from dllama_worker.node.machine import default_threads
from dllama_worker.node.tls import TlsFiles

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "WorkerOptions"]

#: Loopback, unlike the C++ worker: the protocol has no authentication, so the network is opened on purpose.
DEFAULT_HOST = "127.0.0.1"
#: The C++ program's port.
DEFAULT_PORT = 9990


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker listens, computes and reports.

    ``n_threads`` 0 becomes the physical cores that this process may use. ``model`` is a local .m file to take
    weights from (or check the root's against). ``kernels`` is a preference list ``[only:]PLUGIN[:VARIANT],…``,
    empty for the best there is. ``trace`` is the file to write a timeline to. ``metrics_port`` is where
    ``/metrics`` and ``/healthz`` are served, 0 for any port, None for nowhere.

    ``tls`` names the files with which only nodes of the same cluster may join, None takes plain connections.

    What others may do: ``allow`` holds the networks that may connect, none for everybody; ``max_memory`` is how
    many bytes a session may take, None for 90 % of what is free. Times are in seconds: a client has
    ``handshake_timeout`` for each message until its weights are loaded, the cluster as long to connect; during a
    forward another node may be silent for ``sync_timeout``, None for ever; after ``keepalive`` an idle
    one is asked whether it is still there, and given up after as long again.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    n_threads: int = 0
    model: Path | None = None
    kernels: str = ""
    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    max_memory: int | None = None
    handshake_timeout: float = timeouts.HANDSHAKE
    sync_timeout: float | None = timeouts.SYNC
    keepalive: float = timeouts.KEEPALIVE
    tls: TlsFiles | None = None
    trace: Path | None = None
    metrics_host: str = DEFAULT_HOST
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        """Decide how many threads compute, where nobody has."""
        if not self.n_threads:
            object.__setattr__(self, "n_threads", default_threads())
