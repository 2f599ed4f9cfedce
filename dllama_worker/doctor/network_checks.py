"""Checks of the network: is the port free, and how far away is each other node."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter

from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode
from dllama_worker import timeouts
from dllama_worker.doctor.finding import Finding, Grade
from dllama_worker.errors import reason_of
from dllama_worker.worker.options import WorkerOptions

__all__ = ["check_peers", "check_ports"]

_N_PINGS = 5
#: Milliseconds. A cable has a fifth of that, Wi-Fi many times as much.
_SLOW = 1.0
#: Two syncs a layer, of a model with as many layers as a node of this kind of cluster usually runs.
_SYNCS_PER_TOKEN = 2 * 32


def check_ports(options: WorkerOptions) -> Iterator[Finding]:
    """Yield whether the worker could listen."""
    yield _port("port", options.host, options.port)
    if options.metrics_port is not None:
        yield _port("metrics port", options.metrics_host, options.metrics_port)


def _port(name: str, host: str, port: int) -> Finding:
    text = str(Endpoint(host, port))
    facts = {"host": host, "port": port}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        advice = "is a worker running already? Else choose another port or address"
        return Finding(name, f"{text}: {reason_of(error)}", Grade.FAILURE, advice, facts)
    return Finding(name, f"{text} is free", facts=facts)


def check_peers(peers: Sequence[Endpoint], *, connect: bool) -> Iterator[Finding]:
    """Yield the round trip to each peer's host, and with ``connect`` whether its port answers.

    Nobody connects unasked: a C++ worker ends when somebody connects and leaves.
    """
    for peer in peers:
        yield _ping(peer.host)
        if connect:
            yield _connect(peer)


def _ping(host: str) -> Finding:
    name = f"round trip to {host}"
    command = ["ping", "-n", "-q", "-c", str(_N_PINGS), "-i", "0.2", "--", host]
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeouts.DOCTOR_PEER,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return Finding(name, "not measured", Grade.WARNING, "there is no ping program here: install one")
    except subprocess.TimeoutExpired:
        return _unreachable(name, f"no answer in {timeouts.DOCTOR_PEER:g} s")
    times = re.search(
        r"= ([\d.]+)/([\d.]+)/([\d.]+)", run.stdout
    )  # minimum, mean and maximum, as every version of ping prints them
    if times is None:
        reason = run.stderr.strip().removeprefix("ping: ") or "no answer"
        return _unreachable(name, reason)
    min_ms, mean_ms, max_ms = map(float, times.groups())
    return _round_trip(name, min_ms, mean_ms, max_ms)


def _connect(peer: Endpoint) -> Finding:
    name = f"connection to {peer}"
    times = []
    try:
        for _ in range(_N_PINGS):
            before = perf_counter()
            with socket.create_connection((peer.host, peer.port), timeout=timeouts.DOCTOR_PEER):
                times.append((perf_counter() - before) * 1000)
    except ConnectionRefusedError as error:
        return _unreachable(name, str(error.strerror), "the machine is there: is a worker running on it?")
    except OSError as error:
        return _unreachable(name, reason_of(error))
    return _round_trip(name, min(times), median(times), max(times))


def _unreachable(
    name: str,
    reason: str,
    advice: str = "is it on, and in the same network? Does a firewall stand between?",
) -> Finding:
    return Finding(name, reason, Grade.FAILURE, advice, exit_code=ExitCode.PEER)


def _round_trip(name: str, min_ms: float, middle_ms: float, max_ms: float) -> Finding:
    text = f"{middle_ms:.2f} ms (from {min_ms:.2f} to {max_ms:.2f})"
    facts = {"least_ms": min_ms, "middle_ms": middle_ms, "most_ms": max_ms}
    advice = f"a token of a 32-layer model waits {_SYNCS_PER_TOKEN * middle_ms:.0f} ms or more for it"
    if middle_ms > _SLOW:
        return Finding(name, text, Grade.WARNING, f"{advice}: use a cable, not Wi-Fi", facts)
    return Finding(name, text, Grade.OK, advice if _SYNCS_PER_TOKEN * middle_ms > 1 else "", facts)
