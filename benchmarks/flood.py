"""How many honest roots a worker serves while one host floods it with connections.

    python benchmarks/flood.py

A worker listens on loopback; some processes connect to it from 127.0.0.2 as fast as they can, and hold what they have
open for a while. Meanwhile a root at 127.0.0.3 connects, greets 50 ms later and waits for its ack, over and over.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import subprocess
import sys
import time
from collections import deque
from multiprocessing.sharedctypes import Synchronized

from dllama_proto.connection import Connection, Role
from dllama_proto.messages import Greeting

_FLOOD, _ROOT = "127.0.0.2", "127.0.0.3"
_PAUSE = 0.05
_ACK_BYTES = 4


def main() -> None:
    """Print how many connects a second were made, and how many roots were served."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--roots", type=int, default=100, help="honest roots, one after another")
    parser.add_argument("--processes", type=int, default=2, help="that flood (default: %(default)s)")
    parser.add_argument("--hold", type=int, default=200, help="connections each of them holds open")
    parser.add_argument(
        "--greets", action="store_true", help="the flood sends a byte of a greeting each time"
    )
    options = parser.parse_args()
    command = [sys.executable, "-m", "dllama_worker", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr is not None
            address = (
                "127.0.0.1",
                next(
                    entry["port"]
                    for line in worker.stderr
                    if (entry := json.loads(line))["event"] == "listening"
                ),
            )
            multiprocessing.Process(target=_drain, args=(worker.stderr,), daemon=True).start()
            counts = [multiprocessing.Value("q", 0) for _ in range(options.processes)]
            said = b"\1" if options.greets else b""
            flood = [
                multiprocessing.Process(
                    target=_flood, args=(address, options.hold, said, count), daemon=True
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
                print(
                    f"connected and served in {served[len(served) // 2]:.3f} s (median), {served[-1]:.3f} s (most)"
                )
        finally:
            worker.terminate()


def _drain(stream: object) -> None:
    for _ in stream:  # type: ignore[attr-defined]
        pass


def _flood(address: tuple[str, int], hold: int, said: bytes, count: Synchronized[int]) -> None:
    """Connect without end, the oldest closed where too many are open."""
    held: deque[socket.socket] = deque()
    while True:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            sock.bind((_FLOOD, 0))
            sock.connect_ex(address)
            if said:
                sock.send(said)
        except OSError:
            pass  # out of ports, or not connected yet
        held.append(sock)
        count.value += 1
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
