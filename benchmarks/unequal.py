"""Two workers, one held to a part of a core: how much faster ``--split auto`` is than ``even``.

``python benchmarks/unequal.py --model M --tokenizer T`` starts two workers on this machine, each on a core of
its own, holds the second to 30 % of it (a control group's quota; needs root), and runs the same prompt with both
splits, by turns. The root has no share, so that it does not take part in the race. ``--dllama PATH``
makes both workers C++ ones. Prints tokens per second and what ``auto`` had expected.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

#: Microseconds. Short ones, so that a held worker is slow all the time instead of fast and then stopped.
_PERIOD = 10_000
_GROUP = "dllama-unequal"


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def quota(share: float) -> Iterator[Path]:
    """Make a control group with a share of a core (cgroup v1 or v2); yield where its processes are listed."""
    root = Path("/sys/fs/cgroup")
    v2 = (root / "cgroup.controllers").exists()
    group = (root if v2 else root / "cpu") / _GROUP
    group.mkdir()
    try:
        allowed = str(int(share * _PERIOD))
        if v2:
            (group / "cpu.max").write_text(f"{allowed} {_PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(allowed)
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def worker(port: int, core: int, dllama: Path | None) -> subprocess.Popen[bytes]:
    """Start a worker on one core.

    A C++ one waits for its sockets: in its other mode it looks at them without end, and a quota counts that.
    """
    cpp = [str(dllama), "worker", "--net-turbo", "0"]
    program = cpp if dllama else [sys.executable, "-m", "dllama_worker"]
    process = subprocess.Popen(
        [*program, "--host", "127.0.0.1", "--port", str(port), "--nthreads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.sched_setaffinity(process.pid, {core})
    return process


def run(options: argparse.Namespace, ports: Sequence[int], split: str) -> tuple[float, dict[str, Any]]:
    """Run the prompt; return tokens per second of the prediction, and what the root said it expects."""
    result = subprocess.run(
        [sys.executable, "-m", "dllama_worker.root", "inference", "--model", str(options.model), "--tokenizer",
         str(options.tokenizer), "--prompt", "Hello", "--steps", str(options.steps), "--temperature", "0",
         "--max-seq-len", "512", "--split", split, "--root-share", "0", "--nthreads", "1",
         "--json", "--log-format", "json",
         "--workers", *(f"127.0.0.1:{port}" for port in ports)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(result.stderr)
    said = {entry["event"]: entry for entry in map(json.loads, result.stderr.splitlines())}
    return float(json.loads(result.stdout)["prediction"]["tokens_per_second"]), said


def main() -> None:
    """Run both splits by turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--dllama", type=Path, help="the C++ program, for C++ workers")
    parser.add_argument("--share", type=float, default=0.3, help="of a core, for the second worker")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ports = [free_port(), free_port()]
    cores = sorted(os.sched_getaffinity(0))
    with quota(options.share) as procs:
        processes = [worker(port, core, options.dllama) for port, core in zip(ports, cores, strict=False)]
        try:
            procs.write_text(str(processes[1].pid))
            time.sleep(5)  # a held worker starts slowly, and a C++ one must not be asked whether it listens
            rates: dict[str, list[float]] = {"even": [], "auto": []}
            print(
                "| round | even | auto | gain | auto had expected | off | split |\n|---|---|---|---|---|---|---|"
            )
            for i in range(options.rounds):
                for split in rates:
                    rate, said = run(options, ports, split)
                    rates[split].append(rate)
                    time.sleep(2)
                expected = said["expected"]["tokens_per_second"]
                even, auto = rates["even"][-1], rates["auto"][-1]
                print(
                    f"| {i + 1} | {even:.2f} | {auto:.2f} | {auto / even:.2f} | {expected:.2f} | "
                    f"{100 * (expected / auto - 1):+.0f} % | {said['split']['split']} |",
                    flush=True,
                )
            print(
                f"median gain {median(a / e for a, e in zip(rates['auto'], rates['even'], strict=True)):.2f}"
            )
        finally:
            for process in processes:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
