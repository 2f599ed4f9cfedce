"""``python -m tests.fuzz --minutes 10``: search at random, beside it guided by atheris; keep what is found."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from tests.fuzz.findings import LATEST, keep
from tests.fuzz.guided import TARGETS, can_guide

#: One thing to try: its name, the input, and what does it and tells how it came out.
Trial = tuple[str, bytes, Callable[[], str]]


def _use_extension(path: str) -> None:
    """Take the native kernels from this file: a build with sanitizers."""
    spec = importlib.util.spec_from_file_location("dllama_ops.native._core", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"expected an extension module, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["dllama_ops.native._core"] = module


class _RandomSearch:
    """Recordings changed at random, told to the targets in turn; the same seed gives the same inputs."""

    def __init__(self, targets: list[str]) -> None:
        # Only now: the binder shall find the extension that was asked for.
        from tests.fuzz.live import LiveWorker

        self._targets = targets
        self._live = LiveWorker()
        self._outcomes: Counter[str] = Counter()
        self._at = ""
        self.findings = 0

    def run(self, seed: int, deadline: float) -> None:
        """Search until ``deadline`` (of the monotonic clock), then print how often what came out."""
        number = 0
        while time.monotonic() < deadline:
            self._at = f"{seed}.{number}"
            for target in self._targets:
                for trial in getattr(self, f"_{target}")(Random(self._at)):
                    self._try(*trial)
            number += 1
        self._live.close()
        LATEST.unlink(missing_ok=True)
        for name, count in sorted(self._outcomes.items()):
            print(f"{count:8}  {name}")
        print(f"{number} inputs a target, {self.findings} findings")

    def _try(self, name: str, said: bytes, run: Callable[[], str]) -> None:
        try:
            outcome = run()
        except Exception:
            self.findings += 1
            outcome = "FOUND"
            # What a whole cluster said is in no file: the same Random says it again.
            where = keep(said) if said else f"LiveWorker().play(Random({self._at!r}))"
            print(f"{name}: {where}\n{traceback.format_exc()}", flush=True)
        self._outcomes[f"{name}: {outcome}"] += 1

    def _parser(self, random: Random) -> Iterator[Trial]:
        from tests.fuzz.mutation import changed_bytes
        from tests.fuzz.targets import parse

        said = changed_bytes(random)
        yield "parser", said, lambda: "refused" if parse(said) is None else "understood"

    def _binder(self, random: Random) -> Iterator[Trial]:
        from tests.fuzz.mutation import changed_config
        from tests.fuzz.targets import bind_and_run, kernel_sets

        said = changed_config(random)
        LATEST.write_bytes(said)
        for kernels in kernel_sets():
            yield f"binder {kernels}", said, partial(bind_and_run, said, kernels)

    def _socket(self, random: Random) -> Iterator[Trial]:
        from tests.fuzz.mutation import changed_bytes

        said = changed_bytes(random)
        yield "socket", said, lambda: self._live.tell(said)

    def _memory(self, random: Random) -> Iterator[Trial]:
        from tests.fuzz.hungry import hungry_config
        from tests.fuzz.resident import bounded
        from tests.fuzz.targets import kernel_sets

        said = hungry_config(random)
        for kernels in kernel_sets():
            yield f"memory {kernels}", said, partial(bounded, said, kernels)

    def _mesh(self, random: Random) -> Iterator[Trial]:
        yield "mesh", b"", lambda: self._live.play(random)


class _GuidedSearch:
    """A process in which atheris searches; what it says goes to a file, since nobody reads it meanwhile."""

    def __init__(self, target: str, minutes: float, seed: int) -> None:
        self._target = target
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until the process ends
        command = [sys.executable, "-m", "tests.fuzz.guided", f"--target={target}"]
        self._process = subprocess.Popen(
            [*command, f"--minutes={minutes}", f"--seed={seed}"], stderr=self._said
        )

    def wait(self) -> bool:
        """Wait for its end and say how far it came; return whether it found something."""
        code = self._process.wait()
        with self._said:
            self._said.seek(0)
            said = self._said.read()
        coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
        executed = re.findall(r"number_of_executed_units: (\d+)", said)
        if code or not coverage or not executed:
            print(f"guided {self._target}: ended with code {code}\n{said[-5000:]}", flush=True)
            return True
        (began, _, _), (edges, features, kept) = coverage[0], coverage[-1]
        print(
            f"{executed[-1]:>8}  guided {self._target}: {began} edges of the code grew to {edges} ({features} "
            f"features), {kept} inputs kept on the way"
        )
        return False


def main() -> int:
    """Run the targets side by side until the time is over; return 1 if anything was found."""
    everything = ("parser", "binder", "memory", "socket", "mesh")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="default: the time")
    parser.add_argument("--target", choices=("all", *everything), default="all")
    parser.add_argument("--extension", metavar="PATH", help="native kernels built with sanitizers")
    arguments = parser.parse_args()
    targets = list(everything) if arguments.target == "all" else [arguments.target]
    guided: list[_GuidedSearch] = []
    if arguments.extension:
        _use_extension(arguments.extension)
    elif can_guide():
        guided = [_GuidedSearch(t, arguments.minutes, arguments.seed) for t in targets if t in TARGETS]
    else:
        print("atheris is not installed: the search is at random only (pip install atheris)")
    print(f"seed {arguments.seed}", flush=True)
    search = _RandomSearch(targets)
    search.run(arguments.seed, time.monotonic() + 60 * arguments.minutes)
    found = [one.wait() for one in guided]
    return 1 if search.findings or any(found) else 0


if __name__ == "__main__":
    sys.exit(main())
