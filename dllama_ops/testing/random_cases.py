"""Cases made up at random for every key, with the NumPy reference's result as the expected one.

Each op's spec draws its own. Shapes are small but awkward: odd widths, batches not full, slices of wider
buffers, heads that split unevenly over nodes. Everything that a kernel has no business to read is filled with NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from dllama_ops.cases.case import OpCase
from dllama_ops.cases.draft import Draft
from dllama_ops.kernel import KernelFactory, KernelKey
from dllama_ops.reference.specs import OPS

__all__ = ["bad_data_cases", "random_case", "reference_kernels"]


def random_case(key: KernelKey, seed: int) -> OpCase:
    """Return the case of this key and seed; ``expected`` is what the NumPy reference computes.

    Raises KeyError where the reference has no kernel for the key.
    """
    case = OPS.get(key.code).draw(Draft(key, seed))
    bound = case.bind()
    kernel = reference_kernels()[key](bound.context)
    if case.weight is not None:
        kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    kernel.forward(case.batch_size)
    return replace(case, expected=bound.contents())


def bad_data_cases(key: KernelKey, seed: int) -> Iterator[OpCase]:
    """Give cases that a kernel must refuse: one index of a row in the batch is out of range.

    Only ops that take indexes as data have any; see :func:`dllama_ops.testing.check_refusal`.
    """
    indexes = OPS.get(key.code).indexes
    case = random_case(key, seed)
    if indexes is None or indexes.memory not in case.memories:
        return
    memory, bound = indexes.memory, indexes.bound(case)
    good = case.memories[memory]
    for bad in (bound, bound + 7, -1, float("nan"), float("inf"), -float("inf"), 1e30):
        values = np.frombuffer(good.contents, np.float32).copy().reshape(good.y, good.x)
        start, stop = (case.input.columns or (0, good.x)) if memory == case.input.memory else (0, good.x)
        values[(seed * 5) % case.batch_size, start + seed % (stop - start)] = bad
        memories = {**case.memories, memory: replace(good, contents=values.tobytes())}
        yield replace(case, name=f"{case.name}-{memory}-{bad:g}", memories=memories, expected={})


def reference_kernels() -> Mapping[KernelKey, KernelFactory]:
    """Return the NumPy reference's kernels, against which others are compared."""
    return MappingProxyType(
        {KernelKey(spec.code, quant): kernel for spec in OPS for quant, kernel in spec.reference.items()}
    )
