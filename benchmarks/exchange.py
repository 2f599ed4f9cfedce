"""What a sync between two nodes costs beside bare sockets that are looked at without end.

    python benchmarks/exchange.py

Two processes on loopback spend a while, then exchange a slice each, as two nodes do after half a layer.
The bare loop, a send and receives that never wait, is what the C++ program's turbo mode does.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from dllama_worker.certificates.authority import make_certificates
from dllama_worker.node.exchange import Exchange, Lane
from dllama_worker.node.tls import TlsFiles, load_tls
from dllama_worker.node.tls_socket import TlsSocket, accept_tls, dial_tls
from dllama_worker.node.transport import Link

_WARM_UP = 200


def main() -> None:
    """Print the median time of an exchange, in microseconds, both ways, by the pause before it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bytes", type=int, default=1088, help="of a slice (default: half a q80 row of 2048)"
    )
    parser.add_argument("--rounds", type=int, default=3000)
    options = parser.parse_args()
    print(f"{'computing':>12}{'exchange':>12}{'TLS':>12}{'bare':>12}")
    for pause in (0.0, 50e-6, 200e-6, 1e-3):
        rounds = min(options.rounds, int(2 / max(pause, 1e-4)))
        kinds = (_exchange, _exchange_with_tls(), _bare)
        times = [_measure(kind, options.bytes, pause, rounds) for kind in kinds]
        print(f"{pause * 1e6:9.0f} us" + "".join(f"{seconds * 1e6:9.1f} us" for seconds in times))


_Maker = Callable[[socket.socket, int, int], Callable[[], None]]


def _measure(make: _Maker, n_bytes: int, pause: float, rounds: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            with socket.create_connection(listener.getsockname()) as sock:
                _times(make(sock, n_bytes, 1), pause, rounds)
            os._exit(0)
        sock, _ = listener.accept()
        with sock:
            times = _times(make(sock, n_bytes, 0), pause, rounds)
        os.waitpid(child, 0)
    return median(times[_WARM_UP:])


def _times(step: Callable[[], None], pause: float, rounds: int) -> list[float]:
    times = []
    for _ in range(rounds + _WARM_UP):
        begin = perf_counter() + pause
        while perf_counter() < begin:
            pass
        before = perf_counter()
        step()
        times.append(perf_counter() - before)
    return times


def _exchange(sock: socket.socket | TlsSocket, n_bytes: int, side: int) -> Callable[[], None]:
    link, pipe = Link(sock, "the other"), memoryview(bytearray(2 * n_bytes))
    exchange = Exchange(
        [Lane(link, pipe, 2 * n_bytes, side * n_bytes, n_bytes)],
        [Lane(link, pipe, 2 * n_bytes, (1 - side) * n_bytes, n_bytes)],
    )
    return lambda: exchange.run(1)


def _exchange_with_tls() -> _Maker:
    """Return the same with TLS, for which both sides share a certificate that is made here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder, ["node"], 1)
        contexts = load_tls(TlsFiles(folder / "node.crt", folder / "node.key", folder / "ca.crt"))

    def make(sock: socket.socket, n_bytes: int, side: int) -> Callable[[], None]:
        if side:
            return _exchange(dial_tls(sock, contexts.dialling, 5.0), n_bytes, side)
        return _exchange(accept_tls(sock, contexts.accepting, 5.0), n_bytes, side)

    return make


def _bare(sock: socket.socket, n_bytes: int, side: int) -> Callable[[], None]:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    slice_, room = bytes(n_bytes), memoryview(bytearray(n_bytes))

    def step() -> None:
        sock.send(slice_, socket.MSG_DONTWAIT)
        left = n_bytes
        while left:
            try:
                left -= sock.recv_into(room, left, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue

    return step


if __name__ == "__main__":
    main()
