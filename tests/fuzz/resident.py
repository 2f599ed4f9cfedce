"""``python -m tests.fuzz.resident SEED N``: no config takes more resident memory than its limit and a little.

A process of its own, whose peak the system is asked to forget before each config.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from dllama_proto.enums import FloatType
from tests.fuzz.hungry import hungry_config, narrow_matmuls, wide_cast, wide_rope
from tests.fuzz.mutation import changed_config, whole_stream
from tests.fuzz.targets import MAX_BYTES, bind_and_run, kernel_sets

__all__ = ["bounded"]

#: Bytes that a config may take beyond its limit: the allocator's reserves, code that is used for the first time.
_ALLOWANCE = 64 << 20

_PROC = Path("/proc/self")


def bounded(said: bytes, kernels: str) -> str:
    """Bind and run a config; return how far it came. Raises MemoryError where it took too much on the way."""
    (_PROC / "clear_refs").write_text("5", encoding="ascii")  # the peak is what is resident now
    before = _status("VmRSS")
    outcome = bind_and_run(said, kernels)
    taken = _status("VmHWM") - before
    if taken > MAX_BYTES + _ALLOWANCE:
        raise MemoryError(
            f"expected no more than {MAX_BYTES >> 20} MiB and {_ALLOWANCE >> 20} beside, took "
            f"{taken >> 20}: {outcome}"
        )
    return outcome


def _status(name: str) -> int:
    for line in (_PROC / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"expected {name} in {_PROC / 'status'}")


def _configs(seed: str, n: int) -> Iterator[tuple[str, bytes]]:
    # Each within the limit as far as the wire's sizes tell.
    yield "narrow matmuls", narrow_matmuls(1, 1 << 20, 30)
    yield "wide rope", wide_rope(5_800_000)
    for source, target in ((FloatType.F32, FloatType.Q80), (FloatType.Q80, FloatType.F32)):
        yield f"wide cast {source.name}", wide_cast(source, target, 4 << 20)
    for number in range(n):
        random = Random(f"{seed}.{number}")
        yield f"{seed}.{number}", hungry_config(random) if number % 4 else changed_config(random)


def main() -> int:
    """Try the known attacks and N random configs; return 1 where one takes too much."""
    seed, n = sys.argv[1], int(sys.argv[2])
    n_found = 0
    for kernels in kernel_sets():
        bind_and_run(whole_stream(), kernels)
        for name, said in _configs(seed, n):
            try:
                bounded(said, kernels)
            except MemoryError as error:
                n_found += 1
                print(f"{kernels}: {name}, config of {len(said)} bytes: {error}", flush=True)
    return bool(n_found)


if __name__ == "__main__":
    raise SystemExit(main())
