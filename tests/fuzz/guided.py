"""``python -m tests.fuzz.guided --target parser --minutes 5``: atheris looks for ways not taken yet.

Begins with what the recorded roots said up to their configs; an input that reaches new code is kept and changed
further, by bytes and by records. One process a target: atheris ends it when the time is over, or at a finding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from random import Random

__all__ = ["TARGETS", "can_guide"]

TARGETS = ("parser", "binder")

#: A configuration takes some kilobytes; the rest is for the first weights.
_MAX_BYTES = 1 << 16


def can_guide() -> bool:
    """Tell whether atheris is installed."""
    return find_spec("atheris") is not None


def main() -> None:
    """Search until the time is over; atheris decides the exit code: 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, required=True)
    arguments = parser.parse_args()
    import atheris

    # Packages are to come from their folders: atheris cannot instrument what an editable install's finder loads.
    sys.meta_path.sort(key=lambda finder: finder is not PathFinder)
    with atheris.instrument_imports(include=["dllama_proto", "dllama_ops", "dllama_worker"]):
        from tests.fuzz.findings import keep, saved
        from tests.fuzz.mutation import changed_further, configured_streams
        from tests.fuzz.targets import bind_and_run, kernel_sets, parse

    def run(said: bytes) -> None:
        try:
            if arguments.target == "parser":
                parse(said)
            else:
                sets = kernel_sets()
                bind_and_run(said, sets[sum(said) % len(sets)])
        except Exception:
            print(f"{arguments.target}: {keep(said)}", file=sys.stderr, flush=True)
            raise

    def change(said: bytes, max_bytes: int, seed: int) -> bytes:
        random = Random(seed)
        changed = changed_further(said, random) if random.random() < 0.5 else None
        if changed is not None and len(changed) <= max_bytes:
            return changed
        return bytes(atheris.Mutate(said, max_bytes))

    with tempfile.TemporaryDirectory() as folder:
        for number, said in enumerate([*configured_streams(), *saved()]):
            Path(folder, str(number)).write_bytes(said[:_MAX_BYTES])
        options = [
            f"-max_total_time={max(1, round(60 * arguments.minutes))}",
            f"-max_len={_MAX_BYTES}",
            f"-seed={arguments.seed % 2**32}",
            f"-artifact_prefix={folder}/",
            "-rss_limit_mb=4096",
            "-timeout=30",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], folder, *options], run, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
