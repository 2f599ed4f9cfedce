"""Two ends of a real TCP connection on loopback, and ways to break one."""

from __future__ import annotations

import socket
import struct

__all__ = ["reset", "tcp_pair"]


def tcp_pair(buffer_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Return both ends, with small buffers if asked. Either gives up after 30 s."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=30)
        far, _ = listener.accept()
    far.settimeout(30)
    for end in (near, far):
        if buffer_bytes is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    return near, far


def reset(sock: socket.socket) -> None:
    """Close it so that the other end sees a reset, not an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
