"""Comparing the memory that a kernel takes with what was stated before it was made."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

from dllama_ops.cases.case import OpCase
from dllama_ops.kernel import Kernel, KernelFactory, OpContext
from dllama_ops.memory_need import kernel_need

__all__ = ["check_memory_need"]

_TRIES = 3


def check_memory_need(factory: KernelFactory, case: OpCase, *, n_threads: int = 1) -> list[str]:
    """Return what is wrong with a factory's ``memory_need``: nothing, or that its kernel takes more.

    Counted is every byte that Python and NumPy allocate (:mod:`tracemalloc`) from making the kernel to the end of
    its first forward, at its highest, and what ``memory_held`` of the factory, where it has one, rises by. That
    has to be within ``weight`` and ``shared`` alone, which leave no room.
    """
    context = case.bind(n_threads).context
    need = kernel_need(factory, context)
    try:
        _run(factory, context, case)  # whatever is made once in a process is made now
        # Other threads of this process are counted too, so the least of some tries is the kernel's.
        held, peak = min((_measure(factory, context, case) for _ in range(_TRIES)), key=sum)
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]
    failures = []
    kept = need.weight + sum(need.shared.values())
    if held > kept:
        failures.append(
            f"memory_need: expected no more than {kept} bytes kept (weight and shared), got {held}"
        )
    if held + peak > need.total:
        failures.append(f"memory_need: expected no more than {need.total} bytes, got {held + peak}")
    return failures


def _run(factory: KernelFactory, context: OpContext, case: OpCase) -> Kernel:
    kernel = factory(context)
    if case.weight is not None:
        kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    kernel.forward(case.batch_size)
    return kernel


def _measure(factory: KernelFactory, context: OpContext, case: OpCase) -> tuple[int, int]:
    """Return how far ``memory_held`` rises, and how far what Python allocates rises at its highest."""
    memory_held: Callable[[], int] = _nothing_held
    stated: Any = getattr(factory, "memory_held", None)
    if stated is not None:
        memory_held = stated
    was_tracing, was_collecting = tracemalloc.is_tracing(), gc.isenabled()
    gc.disable()  # what others leave behind must not be freed, and so taken off, in between
    if not was_tracing:
        tracemalloc.start()
    try:
        held = memory_held()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        kernel = _run(factory, context, case)
        _, peak = tracemalloc.get_traced_memory()
        held = memory_held() - held
        del kernel
    finally:
        if not was_tracing:
            tracemalloc.stop()
        if was_collecting:
            gc.enable()
    return held, peak - before


def _nothing_held() -> int:
    return 0
