"""How many honest roots a worker serves while one host floods it with connections.

    python benchmarks/flood.py

A worker listens on loopback; some processes connect to it from 127.0.0.2 as fast as they can, and hold what they
have open for a while. Meanwhile a root at 127.0.0.3 connects, greets 50 ms later and waits for its ack, again and
again.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import multiprocessing
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from multiprocessing.sharedctypes import Synchronized

from dllama_proto.connection import Connection, Role
from dllama_proto.messages import Greeting

_FLOOD, _ROOT = "127.0.0.2", "127.0.0.3"
_PAUSE = 0.05
_ACK_BYTES = 4
#: IP_BIND_ADDRESS_NO_PORT of Linux, which Python 3.11 has no name for.
_BIND_ADDRESS_NO_PORT = 24


def main() -> None:
    """Print how many connects a second were made, and how many roots were served."""
    options = _options()
    command = [sys.executable, "-m", "dllama_worker", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        lines = iter(worker.stderr or ())
        entry = json.loads(next(line for line in lines if '"listening"' in line))
        # Somebody must read on, or the worker would wait for its own log.
        reader = threading.Thread(target=deque, args=(lines, 0))
        reader.start()
        try:
            _measure(("127.0.0.1", int(entry["port"])), options)
        finally:
            worker.terminate()
            reader.join()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--roots", type=int, default=100, help="honest roots, one after another")
    parser.add_argument("--processes", type=int, default=2, help="that flood (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="connects a second of all together (default: no limit)")
    parser.add_argument("--hold", type=int, default=200, help="connections each of them holds open")
    parser.add_argument(
        "--greets", action="store_true", help="the flood sends a byte of a greeting each time"
    )
    return parser.parse_args()


def _measure(address: tuple[str, int], options: argparse.Namespace) -> None:
    """Flood the worker at the address, and call it as a root meanwhile."""
    counts = [multiprocessing.Value("q", 0) for _ in range(options.processes)]
    pause = options.processes / options.rate if options.rate else 0.0
    said = b"\1" if options.greets else b""
    flood = [
        multiprocessing.Process(
            target=_flood, args=(address, options.hold, pause, said, count), daemon=True
        )
        for count in counts
    ]
    for process in flood:
        process.start()
    begin = time.monotonic()
    waits = [_root(address) for _ in range(options.roots)]
    seconds = time.monotonic() - begin
    for process in flood:
        process.terminate()
    served = sorted(wait for wait in waits if wait is not None)
    print(f"{sum(count.value for count in counts) / seconds:,.0f} connects a second")
    print(f"{len(served)} of {options.roots} roots served")
    if served:
        median, most = served[len(served) // 2], served[-1]
        print(f"connected and served in {median:.3f} s (median), {most:.3f} s (most)")


def _flood(
    address: tuple[str, int], hold: int, pause: float, said: bytes, count: Synchronized[int]
) -> None:
    """Connect without end, the oldest closed where too many are open."""
    held: deque[socket.socket] = deque()
    begin = time.monotonic()
    while True:
        early = begin + count.value * pause - time.monotonic()
        if pause and early > 0.001:
            time.sleep(early)
        sock = socket.socket()
        sock.setblocking(False)
        # No port stays behind for a minute when it is closed, or there would soon be none left.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((_FLOOD, 0))
        count.value += sock.connect_ex(address) in (0, errno.EINPROGRESS)
        with contextlib.suppress(OSError):
            sock.send(said)
        held.append(sock)
        if len(held) > hold:
            held.popleft().close()


def _root(address: tuple[str, int]) -> float | None:
    """Connect, wait, greet; return the seconds until the ack, None if it doesn't come."""
    begin = time.monotonic()
    try:
        with socket.create_connection(address, timeout=5.0, source_address=(_ROOT, 0)) as sock:
            time.sleep(_PAUSE)
            sock.sendall(Connection(Role.ROOT).send(Greeting(1, 0, ())))
            return time.monotonic() - begin if len(sock.recv(_ACK_BYTES)) == _ACK_BYTES else None
    except OSError:
        return None


if __name__ == "__main__":
    main()
