"""Where workers listen, as people write it."""

from __future__ import annotations

from dataclasses import dataclass

from dllama_worker.arguments import is_host

__all__ = ["WorkerAddress", "parse_worker_address"]


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_worker_address(text: str) -> WorkerAddress:
    """Read ``host:port`` (an IPv6 address in brackets). Raises ValueError saying what is wrong."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not is_host(host)
        or not port.isascii()
        or not port.isdigit()
        or not 0 < int(port) < 65536
    ):
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    return WorkerAddress(host, int(port))
