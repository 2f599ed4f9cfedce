"""A whole segment in one call: native ops in plans, kernels of other plugins between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

from dllama_ops.kernel import BoundOp
from dllama_ops.native import _core
from dllama_ops.native.kernel import NativeKernel, engine_for, run, run_timed
from dllama_ops.segments import stop_check

__all__ = ["NativeSegment", "compile_native"]


class NativeSegment:
    """Runs of native ops as plans, and what is called between them."""

    def __init__(self, ops: Sequence[BoundOp], n_threads: int) -> None:
        engine = engine_for(n_threads)
        self._check = stop_check(ops)
        stop = _core.Stop()
        if ops[0].context.scope is not None:
            ops[0].context.scope.on_stop(stop.set)
        self._parts: list[Callable[[int], None]] = []
        self._timed_parts: list[Callable[[int], list[float]]] = []
        native: list[NativeKernel] = []
        for op in ops:
            if isinstance(op.kernel, NativeKernel):
                native.append(op.kernel)
                continue
            self._close(native, engine, stop)
            native = []
            self._parts.append(op.forward)
            self._timed_parts.append(partial(_time, op.forward))
        self._close(native, engine, stop)

    def _close(self, kernels: list[NativeKernel], engine: _core.Engine, stop: _core.Stop) -> None:
        if kernels:
            plan = _core.Plan([kernel.op for kernel in kernels], engine, stop)
            contexts = [kernel.context for kernel in kernels]
            self._parts.append(partial(run, plan, contexts))
            self._timed_parts.append(partial(run_timed, plan, contexts))

    def forward(self, batch_size: int) -> None:
        """Run every op on the first ``batch_size`` rows.

        Raises KernelDataError, ForwardStopped, and what kernels raise.
        """
        for part in self._parts:
            self._check()
            part(batch_size)

    def profile(self, batch_size: int) -> list[float]:
        """Run as :meth:`forward` does; return the seconds of each op. Raises the same."""
        seconds: list[float] = []
        for part in self._timed_parts:
            self._check()
            seconds += part(batch_size)
        return seconds


def _time(forward: Callable[[int], None], batch_size: int) -> list[float]:
    before = perf_counter()
    forward(batch_size)
    return [perf_counter() - before]


def compile_native(ops: Sequence[BoundOp], n_threads: int) -> NativeSegment | None:
    """Return the segment ready to run, or None where no op of it has a native kernel."""
    if not any(isinstance(op.kernel, NativeKernel) for op in ops):
        return None
    return NativeSegment(ops, n_threads)
