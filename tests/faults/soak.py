"""``python -m tests.faults.soak --minutes 30``: generate without a pause, on workers that stay; compare all texts.

A cluster of four processes on the demo model: three workers for all of it, a root for each text. Every tenth root
is killed on the way. Ends with a table of what the workers held at the beginning and at the end.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.endurance import Holdings, many_sessions
from tests.faults.hosts import generate, puppet
from tests.helpers.processes import WorkerProcess

_STEPS = 256
_WARM_UP = 3
_KILL_EVERY = 10


def _soak(minutes: float) -> bool:
    workers = [WorkerProcess("--sync-timeout", "10") for _ in range(3)]
    addresses = [f"127.0.0.1:{worker.port}" for worker in workers]
    try:
        expected = generate(addresses, steps=_STEPS)
        deadline = time.monotonic() + 60 * minutes
        n_texts = n_other = n_killed = 0
        before = [Holdings.of(worker.process.pid) for worker in workers]
        while time.monotonic() < deadline:
            if n_texts % _KILL_EVERY == _KILL_EVERY - 1:
                with puppet("decode", addresses):
                    n_killed += 1
                for worker in workers:
                    worker.wait_for("session_failed")
            n_other += generate(addresses, steps=_STEPS) != expected
            n_texts += 1
            if n_texts == _WARM_UP:
                before = [Holdings.of(worker.process.pid) for worker in workers]
            for worker in workers:
                worker.drain()
        for index, worker in enumerate(workers):
            print(f"worker {index}: {before[index]} then {Holdings.of(worker.process.pid)}")
        print(
            f"{n_texts} texts of {_STEPS} tokens in {minutes:g} minutes, {n_other} differ from the first; "
            f"{n_killed} roots killed on the way"
        )
        return not n_other
    finally:
        for worker in workers:
            worker.process.kill()
            worker.wait()


def main() -> int:
    """Run what was asked for; return 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, help="instead: so many short sessions on one process")
    arguments = parser.parse_args()
    if arguments.sessions is None:
        return 0 if _soak(arguments.minutes) else 1
    before, after = many_sessions(arguments.sessions)
    print(f"{arguments.sessions} sessions: {before} then {after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
