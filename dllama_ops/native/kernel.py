"""One op with a native kernel: its weight, and a plan of the op alone."""

from __future__ import annotations

import ctypes
import os
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np

from dllama_ops.errors import KernelDataError, WeightPieceError
from dllama_ops.kernel import KernelFactory, OpContext, WeightData
from dllama_ops.native import _core
from dllama_ops.params import RopeParams
from dllama_ops.reference.rope import fill_cache

__all__ = ["KIND_NAMES", "NativeKernel", "engine_for", "native_factory", "run", "run_timed"]

#: What indexes of a kind are called in errors.
KIND_NAMES = MappingProxyType(
    {
        _core.FaultKind.TOKEN: "tokens",
        _core.FaultKind.POSITION: "positions",
        _core.FaultKind.CACHE_ROW: "indexes",
        _core.FaultKind.EXPERT: "expert indexes",
    }
)

#: Teams of threads by process and size: a fork has none of its parent's threads.
_engines: WeakValueDictionary[tuple[int, int], _core.Engine] = WeakValueDictionary()


def engine_for(n_threads: int) -> _core.Engine:
    """Return the team of ``n_threads`` that all ops of this process share; it ends with the last of them."""
    key = os.getpid(), n_threads
    engine = _engines.get(key)
    if engine is None:
        engine = _engines[key] = _core.Engine(n_threads)
    return engine


def run(plan: _core.Plan, contexts: list[OpContext], batch_size: int) -> None:
    """Run a plan of these ops. Raises KernelDataError for an index out of range."""
    _check(plan.run(batch_size), contexts)


def run_timed(plan: _core.Plan, contexts: list[OpContext], batch_size: int) -> list[float]:
    """Run as :func:`run` does, and return the seconds of each op."""
    fault, seconds = plan.run_timed(batch_size)
    _check(fault, contexts)
    return seconds


def _check(fault: tuple[int, _core.FaultKind, float, int] | None, contexts: list[OpContext]) -> None:
    if fault is not None:
        index, kind, value, limit = fault
        context = contexts[index]
        op = f"{context.key} {context.name!r} of layer {context.index}"
        raise KernelDataError(op, KIND_NAMES[kind], value, limit)


class NativeKernel:
    """An op that the core computes, with the kernels of one variant."""

    def __init__(self, variant: str, context: OpContext) -> None:
        self.context = context
        self._finished = False
        self._plan: _core.Plan | None = None
        self._engine = engine_for(context.n_threads)
        self._weight: _core.Weight | None = None
        spec = context.weight
        if spec is not None:
            self._weight = _core.Weight(variant, context.key.code, spec.float_type, spec.z, spec.y, spec.x)
        if isinstance(context.params, RopeParams):
            with np.errstate(all="ignore"):
                fill_cache(context.params)
        self.op = _core.Op(context, variant, self._weight)

    def touch_weight(self) -> None:
        """Have the weight's memory made ready before anything is loaded; from any thread."""
        if self._weight is not None:
            self._weight.touch()

    def weight_view(self, offset: int, n_bytes: int) -> memoryview | None:
        """Return the weight's own memory where it is kept as on the wire. Raises WeightPieceError."""
        weight = self._open_weight()
        try:
            address = weight.raw_address(offset, n_bytes)
        except (IndexError, TypeError) as error:
            raise self._misfit(offset, n_bytes) from error
        if address is None:
            return None
        # The array lives in memory of the weight, which has to live as long.
        array = (ctypes.c_ubyte * n_bytes).from_address(address)
        array.weight = weight  # type: ignore[attr-defined]
        return memoryview(array).cast("B")

    def load_weight(self, offset: int, data: WeightData) -> None:
        """Put a piece in its place, from wherever it is cut. Raises WeightPieceError."""
        weight = self._open_weight()
        try:
            weight.load(offset, data)
        except (IndexError, TypeError) as error:
            raise self._misfit(offset, memoryview(data).nbytes) from error

    def finish_weight(self) -> None:
        """Accept no more pieces."""
        self._finished = True

    def forward(self, batch_size: int) -> None:
        """Compute the first ``batch_size`` rows of each z. Raises KernelDataError."""
        if self._plan is None:
            self._plan = _core.Plan([self.op], self._engine)
        run(self._plan, [self.context], batch_size)

    def _open_weight(self) -> _core.Weight:
        if self._weight is None:
            raise TypeError(f"{self.context.key} {self.context.name!r} takes no weight")
        if self._finished:
            raise WeightPieceError(
                f"{self.context.key} {self.context.name!r}: expected no more pieces, the weight is finished"
            )
        return self._weight

    def _misfit(self, offset: int, n_bytes: int) -> WeightPieceError:
        total = self.context.weight.n_bytes if self.context.weight else 0
        return WeightPieceError(
            f"{self.context.key} {self.context.name!r}: expected pieces within the weight's "
            f"{total} bytes, got {n_bytes} bytes at {offset}"
        )


def native_factory(variant: str) -> KernelFactory:
    """Return what makes kernels of one variant."""

    def make(context: OpContext) -> NativeKernel:
        return NativeKernel(variant, context)

    make.__name__ = NativeKernel.__name__  # as people see it in a listing
    return make
