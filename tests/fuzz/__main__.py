"""``python -m tests.fuzz --minutes 10``: search at random, keep what was found in the corpus."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

_CORPUS = Path(__file__).with_name("corpus")


def _use_extension(path: str) -> None:
    """Take the native kernels from this file: a build with sanitizers."""
    spec = importlib.util.spec_from_file_location("dllama_ops.native._core", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"expected an extension module, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["dllama_ops.native._core"] = module


def main() -> int:
    """Run the targets side by side until the time is over; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="default: the time")
    parser.add_argument("--target", choices=("all", "parser", "binder", "socket"), default="all")
    parser.add_argument("--extension", metavar="PATH", help="native kernels built with sanitizers")
    arguments = parser.parse_args()
    if arguments.extension:
        _use_extension(arguments.extension)
    from tests.fuzz.live import LiveWorker
    from tests.fuzz.mutation import changed_bytes, changed_config
    from tests.fuzz.targets import bind_and_run, kernel_sets, parse

    outcomes: Counter[str] = Counter()
    live: LiveWorker | None = None

    def parser_target(random: Random) -> bytes:
        said = changed_bytes(random)
        yield_to(said, lambda: "understood" if parse(said) else "refused", "parser")
        return said

    def binder_target(random: Random) -> bytes:
        said = changed_config(random)
        for kernels in kernel_sets():
            yield_to(said, partial(bind_and_run, said, kernels), f"binder {kernels}")
        return said

    def socket_target(random: Random) -> bytes:
        nonlocal live
        said = changed_bytes(random)

        def tell() -> str:
            nonlocal live
            live = live or LiveWorker()
            try:
                live.tell(said)
            except Exception:
                live.kill()
                live = None
                raise
            return "survived"

        yield_to(said, tell, "socket")
        return said

    findings = 0

    def yield_to(said: bytes, run: Callable[[], str], name: str) -> None:
        nonlocal findings
        # A crash of native code ends this process: what led to it must lie on disk before.
        if name.startswith("binder"):
            _CORPUS.with_name("latest.bin").write_bytes(said)
        try:
            outcome = run()
        except Exception:
            findings += 1
            outcome = "FOUND"
            path = _CORPUS / f"{hashlib.sha256(said).hexdigest()[:16]}.bin"
            path.write_bytes(said)
            print(f"{name}: {path}\n{traceback.format_exc()}", flush=True)
        outcomes[f"{name}: {outcome}"] += 1

    targets = {"parser": parser_target, "binder": binder_target, "socket": socket_target}
    chosen = list(targets.values()) if arguments.target == "all" else [targets[arguments.target]]
    print(f"seed {arguments.seed}", flush=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    number = 0
    while time.monotonic() < deadline:
        for target in chosen:
            target(Random(f"{arguments.seed}.{number}"))  # the same seed, the same inputs
        number += 1
    if live is not None:
        live.close()
    _CORPUS.with_name("latest.bin").unlink(missing_ok=True)
    for name, count in sorted(outcomes.items()):
        print(f"{count:8}  {name}")
    print(f"{number} inputs a target, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
