"""Times a kernel on a workload, and what this machine's memory could have done meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from dllama_ops import native
from dllama_ops.bench.workloads import Workload
from dllama_ops.kernel import Kernel, WeightData
from dllama_ops.table import KernelEntry
from dllama_ops.tensor import WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import Q40_BLOCK

__all__ = ["Measurement", "measure", "memory_bandwidth"]

#: Larger than most caches, so that reading it is reading memory.
_BANDWIDTH_BYTES = 256 << 20
_BANDWIDTH_PASSES = 7
_MIN_RUNS = 3
#: Bytes of a weight made up and loaded at a time.
_PIECE_BYTES = 18 << 16


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a kernel did: the median time of a forward, in seconds, and the shortest."""

    workload: Workload
    kernel: str
    seconds: float
    best_seconds: float

    @property
    def giga_products(self) -> float:
        """Multiplications per second, in units of 10^9 (GMAC/s for matmuls)."""
        return self.workload.products / self.seconds / 1e9

    @property
    def gigabytes(self) -> float:
        """Bytes that had to move, per second, in units of 10^9."""
        return self.workload.total_bytes / self.seconds / 1e9


def measure(workload: Workload, entry: KernelEntry, n_threads: int, seconds: float = 0.2) -> Measurement:
    """Run a kernel on a workload for about ``seconds``, after one run that does not count."""
    context = workload.make(n_threads)
    kernel = entry.factory(context)
    if context.weight is not None:
        _load_weight(kernel, context.weight)
    kernel.finish_weight()
    kernel.forward(workload.batch_size)
    times: list[float] = []
    deadline = perf_counter() + seconds
    while len(times) < _MIN_RUNS or perf_counter() < deadline:
        before = perf_counter()
        kernel.forward(workload.batch_size)
        times.append(perf_counter() - before)
    return Measurement(workload, entry.source, median(times), min(times))


def memory_bandwidth() -> float:
    """Return how many 10^9 bytes a second one thread reads from memory: the best of several passes.

    Measured by the native core; without it by NumPy, which reaches a part of that only.
    """
    if native.unavailable is None:
        return native.read_bandwidth(_BANDWIDTH_BYTES, _BANDWIDTH_PASSES) / 1e9
    memory = np.ones(_BANDWIDTH_BYTES // 4, np.int32)
    best = float("inf")
    for _ in range(_BANDWIDTH_PASSES):
        before = perf_counter()
        memory.max()
        best = min(best, perf_counter() - before)
    return _BANDWIDTH_BYTES / best / 1e9


def _load_weight(kernel: Kernel, spec: WeightSpec) -> None:
    """Fill a weight with a random pattern, piece by piece."""
    rng = np.random.default_rng(0)
    if spec.float_type is FloatType.Q40:
        blocks = np.empty(_PIECE_BYTES // Q40_BLOCK.itemsize, Q40_BLOCK)
        blocks["d"] = 0.01
        blocks["qs"] = rng.integers(0, 256, blocks["qs"].shape, np.uint8)
        pattern = blocks.tobytes()
    else:
        pattern = rng.standard_normal(_PIECE_BYTES // 4, np.float32).tobytes()
    for offset in range(0, spec.n_bytes, len(pattern)):
        piece: WeightData = memoryview(pattern)[: min(len(pattern), spec.n_bytes - offset)]
        kernel.load_weight(offset, piece)
