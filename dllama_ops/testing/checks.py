"""Running a kernel on a case, and saying everything that is wrong with what it did."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dllama_ops.cases.case import BoundCase, OpCase, units
from dllama_ops.contract import check_context
from dllama_ops.errors import KernelDataError, WeightPieceError
from dllama_ops.kernel import Kernel, KernelFactory, OpContext
from dllama_ops.op_spec import Written
from dllama_ops.reference.specs import OPS
from dllama_ops.testing.tolerances import EXACT, Tolerance, tolerance_of

__all__ = ["check_kernel", "check_refusal", "load_in_pieces"]


def check_kernel(factory: KernelFactory, case: OpCase, *, n_threads: int = 1) -> list[str]:
    """Return all that is wrong with a kernel's work on a case; an empty list if nothing is.

    The weight is loaded in pieces, last one first. Then: the output's rows of the batch (and what else the
    op writes) agree with what is expected, within :func:`tolerance_of`; all other memory, rows past the
    batch and the surroundings of every buffer included, is as it was; a second run on the same input gives
    the same bits; pieces outside the weight are refused.
    """
    bound = case.bind(n_threads)
    failures = [f"the case breaks the contract: {failure}" for failure in check_context(bound.context)]
    if failures:
        return failures
    try:
        kernel = factory(bound.context)
        failures += load_in_pieces(kernel, case)
        kernel.finish_weight()
        ready = bound.contents()
        kernel.forward(case.batch_size)
        first = bound.contents()
        bound.fill(ready)
        kernel.forward(case.batch_size)
    except Exception as error:
        return [*failures, f"raised {type(error).__name__}: {error}"]
    again = bound.contents()
    # What is only scratch (attention's scores) need not be the same.
    scratch = _scratch(bound.context, bound)
    failures += [
        f"{name}: a second run on the same input gives other bits"
        for name in first
        if name not in scratch and first[name] != again[name]
    ]
    bound.fill(first)
    return failures + _compare(case, bound)


def check_refusal(factory: KernelFactory, case: OpCase, *, n_threads: int = 1) -> list[str]:
    """Return what is wrong with how a kernel meets an index out of range.

    It must raise KernelDataError from ``forward``, with all memory as it was.
    """
    bound = case.bind(n_threads)
    try:
        kernel = factory(bound.context)
        failures = load_in_pieces(kernel, case)
        kernel.finish_weight()
    except Exception as error:
        return [f"raised {type(error).__name__} before any batch: {error}"]
    ready = bound.contents()
    try:
        kernel.forward(case.batch_size)
        failures.append("expected KernelDataError, nothing was raised")
    except KernelDataError as error:
        if case.key.code.name not in str(error):
            failures.append(f"expected the error to name {case.key.code.name}, got {error}")
    except Exception as error:
        failures.append(f"expected KernelDataError, got {type(error).__name__}: {error}")
    after = bound.contents()
    failures += [
        f"{name}: written to in spite of the bad data" for name in ready if ready[name] != after[name]
    ]
    return failures + [f"{name}: written beyond its end" for name in bound.overrun()]


def load_in_pieces(kernel: Kernel, case: OpCase) -> list[str]:
    """Give a kernel its weight in pieces of odd sizes, last one first; return what goes wrong.

    Every other piece is written to ``weight_view`` where the kernel offers one. Pieces that reach beyond
    the weight are tried first, and must be refused.
    """
    if case.weight is None:
        return []
    data, n_bytes = case.weight_bytes, len(case.weight_bytes)
    failures = []
    for offset, size in ((n_bytes, 1), (n_bytes - 1, 2), (0, n_bytes + 1)):
        try:
            if kernel.weight_view(offset, size) is None:
                kernel.load_weight(offset, bytes(size))
        except WeightPieceError:
            continue
        failures.append(f"took bytes {offset} to {offset + size} of a weight of {n_bytes}")
    cuts = sorted({0, n_bytes // 3 | 1, n_bytes // 2, n_bytes - n_bytes // 5, n_bytes})
    for number, (start, stop) in reversed(list(enumerate(pairwise(cuts)))):
        view = kernel.weight_view(start, stop - start) if number % 2 else None
        if view is None:
            kernel.load_weight(start, memoryview(data)[start:stop])
        elif view.nbytes == stop - start:
            view.cast("B")[:] = data[start:stop]
        else:
            failures.append(f"for a piece of size {stop - start} gave memory of size {view.nbytes}")
    return failures


def _scratch(context: OpContext, bound: BoundCase) -> set[str]:
    """Return the memories whose contents an op leaves open."""
    left = [part.values for part in _written(context, context.n_batches) if part.tolerance is None]
    return {
        name
        for name, arena in bound.arenas.items()
        if any(np.may_share_memory(arena.bytes, values) for values in left)
    }


def _written(context: OpContext, batch_size: int) -> list[Written]:
    """Return what an op may write, each as a view of its memory; the output last."""
    spec = OPS.get(context.key.code)
    output = Written("output", spec.output(context, batch_size), tolerance_of(context.key))
    return [*spec.also_writes(context, batch_size), output]


def _compare(case: OpCase, bound: BoundCase) -> list[str]:
    """Compare memory after the op with what is expected."""
    failures = [f"{name}: written beyond its end" for name in bound.overrun()]
    wanted, before = case.bind(), case.bind()
    wanted.fill(case.expected)
    came = _written(bound.context, case.batch_size)
    expected = _written(wanted.context, case.batch_size)
    untouched = _written(before.context, case.batch_size)
    for part, wanted_part, before_part in zip(came, expected, untouched, strict=True):
        if part.tolerance is not None:
            values, wanted_values = units(part.values), units(wanted_part.values)
            failures += _differences(part.what, values, wanted_values, part.tolerance)
        # Now compared: make it the same as before, so that all the rest can be compared byte for byte.
        part.values[...] = before_part.values
    return failures + _changed(bound.contents(), before.contents())


def _differences(
    what: str, came: npt.NDArray[Any], expected: npt.NDArray[Any], tolerance: Tolerance
) -> list[str]:
    if tolerance == EXACT:
        wrong = came.view(np.uint8) != expected.view(np.uint8)
        if not wrong.any():
            return []
        wrong = wrong.reshape(*came.shape, -1).any(axis=-1)
        worst = np.unravel_index(int(wrong.argmax()), wrong.shape)
        allowed = "the same bits"
    else:
        excess = tolerance.excess(came, expected)
        wrong = excess > 0
        if not wrong.any():
            return []
        worst = np.unravel_index(int(excess.argmax()), excess.shape)
        allowed = f"{tolerance.relative:g} of the row's largest magnitude + {tolerance.absolute:g}"
    place = "".join(f"[{index}]" for index in worst)
    return [
        f"{what}: {int(wrong.sum())} of {wrong.size} are wrong, the worst at {place}: "
        f"expected {expected[worst]!s} within {allowed}, got {came[worst]!s}"
    ]


def _changed(came: Mapping[str, bytes], before: Mapping[str, bytes]) -> list[str]:
    failures = []
    for name, data in came.items():
        changed = np.flatnonzero(np.frombuffer(data, np.uint8) != np.frombuffer(before[name], np.uint8))
        if changed.size:
            failures.append(
                f"{name}: bytes changed that the op may not write: {changed.size}, the first at {changed[0]}"
            )
    return failures
