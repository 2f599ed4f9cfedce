"""One op with a native kernel: its weight, and a plan of the op alone."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Hashable
from types import MappingProxyType
from weakref import WeakValueDictionary

from dllama_ops.errors import KernelDataError, WeightPieceError
from dllama_ops.kernel import OpContext, WeightData
from dllama_ops.memory_need import KernelNeed
from dllama_ops.native import _core
from dllama_ops.params import MatmulParams, MultiHeadAttParams, RopeParams
from dllama_ops.reference.rope import fill_cache_bytes, prepare_cache
from dllama_ops.scope import ForwardStopped

__all__ = ["KIND_NAMES", "NativeFactory", "NativeKernel", "engine_for", "run", "run_timed"]

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
    """Return the team of ``n_threads`` that all ops of this process share; it ends with the last of them.

    Raises OSError where the system does not let this process have so many.
    """
    key = os.getpid(), n_threads
    engine = _engines.get(key)
    if engine is None:
        try:
            engine = _engines[key] = _core.Engine(n_threads)
        except RuntimeError as error:  # std::system_error of std::thread
            raise OSError(
                errno.EAGAIN, f"cannot start {n_threads} threads to compute with, ask for fewer: {error}"
            ) from error
    return engine


def run(plan: _core.Plan, contexts: list[OpContext], batch_size: int) -> None:
    """Run a plan of these ops. Raises KernelDataError for an index out of range, ForwardStopped."""
    _check(plan.run(batch_size), contexts)


def run_timed(plan: _core.Plan, contexts: list[OpContext], batch_size: int) -> list[float]:
    """Run as :func:`run` does, and return the seconds of each op."""
    fault, seconds = plan.run_timed(batch_size)
    _check(fault, contexts)
    return seconds


def _check(fault: tuple[int, _core.FaultKind, float, int] | None, contexts: list[OpContext]) -> None:
    if fault is not None:
        index, kind, value, limit = fault
        if kind is _core.FaultKind.STOPPED:
            raise ForwardStopped
        context = contexts[index]
        raise KernelDataError(context.where, KIND_NAMES[kind], value, limit)


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
            prepare_cache(context)
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
            raise TypeError(f"{self.context.where} takes no weight")
        if self._finished:
            raise WeightPieceError(f"{self.context.where}: expected no more pieces, the weight is finished")
        return self._weight

    def _misfit(self, offset: int, n_bytes: int) -> WeightPieceError:
        total = self.context.weight.n_bytes if self.context.weight else 0
        return WeightPieceError(
            f"{self.context.where}: expected pieces within the weight's "
            f"{total} bytes, got bytes {offset} to {offset + n_bytes}"
        )


class NativeFactory:
    """What makes kernels of one variant, and knows what memory they take."""

    def __init__(self, variant: str) -> None:
        self._variant = variant
        self.__name__ = NativeKernel.__name__  # as people see it in a listing

    def __call__(self, context: OpContext) -> NativeKernel:
        """Make the kernel of an op."""
        return NativeKernel(self._variant, context)

    def memory_need(self, context: OpContext) -> KernelNeed:
        """Return the weight in the layout of this variant, the op's place in plans, and what ops share.

        Ops of the same input share its prepared rows, all ops the scratch of each thread. Whether an op is run
        alone or in a segment's plan makes no difference.
        """
        weight, params = context.weight, context.params
        n_bytes = 0
        if weight is not None:
            n_bytes = _core.weight_memory_bytes(
                self._variant, weight.float_type, weight.z, weight.y, weight.x
            )
        shared: dict[Hashable, int] = {}
        if isinstance(params, MatmulParams | MultiHeadAttParams):  # no other ops take any
            prepared, scratch = _core.Op(context, self._variant, None).memory_need()
            if prepared:
                data, gathers = (
                    context.input.data,
                    isinstance(params, MatmulParams) and params.n_active_experts > 0,
                )
                where = data.ctypes.data, data.strides, data.shape, gathers
                shared["native prepared rows", where] = prepared
            if scratch:
                shared["native scratch", context.n_threads] = scratch * context.n_threads
        return KernelNeed(
            weight=n_bytes,
            lasting=_core.plan_bytes_per_op(),
            passing=fill_cache_bytes(params) if isinstance(params, RopeParams) else 0,
            shared=shared,
        )

    def memory_held(self) -> int:
        """Return the bytes of weights, prepared rows and scratch that there are now, of all variants."""
        return _core.memory_held()
