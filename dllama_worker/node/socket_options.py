"""What is asked of the kernel for each connection: no delay, a host that vanishes noticed, waits bounded."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Protocol

__all__ = ["bound_waits", "keep_alive", "send_at_once"]

_N_PROBES = 6


class _HasOptions(Protocol):
    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


def send_at_once(sock: _HasOptions) -> None:
    """Switch Nagle's algorithm off: syncs are many small messages whose delay is the cluster's pace."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def keep_alive(sock: _HasOptions, seconds: float) -> None:
    """Notice a host that vanishes without a word after twice so many seconds (RFC 1122, RFC 5482)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        idle = max(1, round(seconds))
        interval = max(1, round(seconds / _N_PROBES))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _N_PROBES)
        # Keep-alive rests while bytes of ours are on their way: then this counts.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * idle)


def bound_waits(sock: _HasOptions, seconds: float | None) -> None:
    """Bound how long one call in blocking mode waits; None: no limit. The kernel does it, so it costs nothing."""
    whole = 0 if seconds is None else int(seconds)
    micros = 0 if seconds is None else int((seconds - whole) * 1_000_000)
    interval = struct.pack("ll", whole, micros)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
