"""Running a segment, batch after batch, beside kernels that run one by one, and saying what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dllama_ops.cases.case import Batch, BoundSegment, Memory, SegmentCase
from dllama_ops.contract import check_context
from dllama_ops.errors import KernelDataError
from dllama_ops.kernel import BoundOp, CompiledSegment, KernelFactory, KernelKey
from dllama_ops.segments import SequentialSegment
from dllama_ops.testing.random_cases import reference_kernels
from dllama_ops.testing.tolerances import Tolerance
from dllama_proto.enums import FloatType
from dllama_proto.floats import bytes_to_values

__all__ = ["CompileSegment", "check_in_segment", "check_segment"]

#: What a plugin marks as ``dllama_compile_segment``.
CompileSegment = Callable[[Sequence[BoundOp], int], CompiledSegment | None]


def check_segment(
    compile_ops: CompileSegment,
    case: SegmentCase,
    *,
    kernels: Mapping[KernelKey, KernelFactory],
    n_threads: int = 1,
) -> list[str] | None:
    """Return all that is wrong with a compiled segment, or None where the plugin leaves the segment alone.

    The ops get the given kernels, and the NumPy reference's where there is none for a key. Every batch of
    the case goes through the segment as compiled and through the same kernels one after another; after
    each, all memory agrees, but for scratch. The last batch once more gives the same bits; an index out of
    range is a KernelDataError, after which the segment still computes.
    """
    chosen = {**reference_kernels(), **kernels}
    return _check(compile_ops, case, chosen, chosen, n_threads)


def check_in_segment(
    key: KernelKey, factory: KernelFactory, case: SegmentCase, *, n_threads: int = 1
) -> list[str] | None:
    """Return all that is wrong with a kernel among the reference's, batch after batch of a segment.

    As :func:`check_segment`, with the reference for all ops as what must agree: what a kernel keeps from
    one forward to the next (a copy of a cache, say) shows here. None where no op has the key.
    """
    if all(op.key != key for op in case.ops):
        return None
    reference = reference_kernels()
    return _check(
        lambda ops, _: SequentialSegment(ops), case, {**reference, key: factory}, reference, n_threads
    )


def _check(
    compile_ops: CompileSegment,
    case: SegmentCase,
    kernels: Mapping[KernelKey, KernelFactory],
    kernels_beside: Mapping[KernelKey, KernelFactory],
    n_threads: int,
) -> list[str] | None:
    bound, beside = case.bind(n_threads), case.bind(n_threads)
    failures = [
        f"the case breaks the contract: {f}" for each in bound.contexts for f in check_context(each)
    ]
    if failures:
        return failures
    try:
        segment = compile_ops(_make_ops(case, bound, kernels), n_threads)
        if segment is None:
            return None
        one_by_one = SequentialSegment(_make_ops(case, beside, kernels_beside))
        for number, batch in enumerate(case.batches):
            where = f"batch {number} (size {batch.size})"
            _run(one_by_one, beside, batch)
            _run(segment, bound, batch)
            failures += [f"{where}: {failure}" for failure in _compare(case, bound, beside)]
        if not failures:
            failures += _repeat(case, segment, bound)
    except Exception as error:
        failures.append(f"raised {type(error).__name__}: {error}")
    return failures + [f"{name}: written beyond its end" for name in bound.overrun()]


def _make_ops(
    case: SegmentCase, bound: BoundSegment, chosen: Mapping[KernelKey, KernelFactory]
) -> list[BoundOp]:
    """Make the kernels of a segment and load their weights, as a node does before it has segments compiled."""
    ops = []
    for op, context in zip(case.ops, bound.contexts, strict=True):
        kernel = chosen[context.key](context)
        if op.weight is not None:
            kernel.load_weight(0, op.weight_bytes)
        kernel.finish_weight()
        ops.append(BoundOp(context, kernel))
    return ops


def _run(segment: CompiledSegment, bound: BoundSegment, batch: Batch) -> None:
    bound.fill(batch.contents)
    segment.forward(batch.size)


def _compare(case: SegmentCase, bound: BoundSegment, beside: BoundSegment) -> list[str]:
    tolerance = Tolerance(relative=case.relative)
    came, expected = bound.contents(), beside.contents()
    failures = []
    for name, memory in case.memories.items():
        if name in case.scratch or came[name] == expected[name]:
            continue
        a, b = _values(memory, came[name]), _values(memory, expected[name])
        excess = tolerance.excess(a, b)
        wrong = excess > 0
        if wrong.any():
            worst = np.unravel_index(int(excess.argmax()), excess.shape)
            place = "".join(f"[{index}]" for index in worst)
            failures.append(
                f"{name}: {int(wrong.sum())} of {wrong.size} are wrong, the worst at "
                f"{place}: expected {b[worst]!s} within {case.relative:g} of the row's largest "
                f"magnitude, got {a[worst]!s}"
            )
    return failures


def _values(memory: Memory, data: bytes) -> npt.NDArray[np.float32]:
    if memory.float_type is FloatType.F32:
        return np.frombuffer(data, np.float32).reshape(memory.z, memory.y, memory.x)
    return bytes_to_values(memory.float_type, data).reshape(memory.z, memory.y, memory.x)


def _repeat(case: SegmentCase, segment: CompiledSegment, bound: BoundSegment) -> list[str]:
    """Run the last batch again, the bad one, and the last one once more."""
    failures = []
    first = bound.contents()

    def differing() -> list[str]:
        _run(segment, bound, case.batches[-1])
        again = bound.contents()
        return [name for name in first if name not in case.scratch and first[name] != again[name]]

    failures += [f"{name}: a second run on the same input gives other bits" for name in differing()]
    if case.bad is None:
        return failures
    try:
        _run(segment, bound, case.bad)
        failures.append("expected KernelDataError for a position out of range, nothing was raised")
    except KernelDataError:
        # What ran before the op that refuses may have written: only rows of this forward count.
        bound.fill(first)
        failures += [f"{name}: other bits after a batch that was refused" for name in differing()]
    except Exception as error:
        failures.append(
            f"expected KernelDataError for a position out of range, got {type(error).__name__}: {error}"
        )
    return failures
