"""Measures how fast captures are dissected: ``python benchmarks/dissect.py CAPTURE [CAPTURE ...]``.

Each capture is read to its end several times, and the processor time of this process counted. To compare two
states of the code, run both in turn on the same capture: the ratio says more than either figure.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from dllama_proto.dissect import dissect_pcap


def measure(path: Path) -> tuple[float, int]:
    """Return the processor seconds that a capture takes, and its number of events."""
    began = time.process_time()
    n_events = sum(1 for _ in dissect_pcap(str(path)))
    return time.process_time() - began, n_events


def main() -> None:
    """Print one line for each capture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("captures", type=Path, nargs="+", metavar="CAPTURE")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("capture                             MB    events   MB/s: least  median    most")
    for path in arguments.captures:
        size = path.stat().st_size / 1e6
        rounds = [measure(path) for _ in range(arguments.rounds)]
        rates = sorted(size / seconds for seconds, _ in rounds)
        figures = f"{rates[0]:13.1f} {statistics.median(rates):7.1f} {rates[-1]:7.1f}"
        print(f"{path.name:30.30} {size:7.1f} {rounds[0][1]:9} {figures}")


if __name__ == "__main__":
    main()
