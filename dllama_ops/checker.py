"""Collects the faults of one op's context: the checks that several ops have in common."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Literal

import numpy as np

from dllama_ops.kernel import OpContext
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType
from dllama_proto.floats import is_whole_blocks, storage_dtype

__all__ = ["Checker", "shape_of", "spec_of"]

#: The types that kernels compute with; nodes only know the size of F16.
_COMPUTED = (FloatType.F32, FloatType.Q40, FloatType.Q80)


class Checker:
    """One op's context and the faults found in it so far."""

    def __init__(self, context: OpContext) -> None:
        self.context = context
        self.source = context.input
        self.target = context.output
        #: The record of this op code (checked before anything looks at it).
        self.params: Any = context.params
        self.faults: list[str] = []

    @property
    def weight(self) -> WeightSpec:
        """The weight of an op that has one."""
        if self.context.weight is None:
            raise TypeError(f"{self.context.key} has no weight")
        return self.context.weight

    def expect(self, holds: bool, what: str, expected: object, came: object) -> bool:
        """Note a fault unless it holds; return whether it does."""
        if not holds:
            self.faults.append(f"{what}: expected {expected}, got {came}")
        return holds

    def positive(self, **values: int) -> bool:
        """Check counts that must be at least 1."""
        return _every(self.expect(value > 0, what, "at least 1", value) for what, value in values.items())

    def even(self, **values: int) -> bool:
        """Check sizes of rows that hold pairs."""
        return _every(
            self.expect(value >= 0 and value % 2 == 0, what, "an even number", value)
            for what, value in values.items()
        )

    def positive_numbers(self, **values: float) -> bool:
        """Check numbers that are divided by or raised to a power."""
        return _every(
            self.expect(isfinite(value) and value > 0, what, "a positive number", value)
            for what, value in values.items()
        )

    def memory(self, what: str, tensor: Tensor, *, writable: bool = False) -> bool:
        """Check that a tensor is memory as :class:`Tensor` describes it."""
        kind, data = tensor.float_type, tensor.data
        if not self.expect(kind in _COMPUTED, what, "F32, Q40 or Q80", kind.name):
            return False
        dtype = storage_dtype(kind)
        shaped = data.ndim == 3 and data.size > 0
        if not (
            self.expect(data.dtype == dtype, what, f"NumPy type {dtype}", data.dtype)
            and self.expect(shaped, what, "values [z][y][x]", f"shape {data.shape}")
        ):
            return False
        side_by_side = data.shape[2] == 1 or data.strides[2] == dtype.itemsize
        open_to = not writable or data.flags.writeable
        return _every(
            [
                self.expect(side_by_side, what, "a row's values side by side", f"strides {data.strides}"),
                self.expect(data.flags.aligned, what, "aligned memory", f"address {data.ctypes.data:#x}"),
                self.expect(open_to, what, "writable memory", "read-only memory"),
            ]
        )

    def weight_size(self, rows: Literal["x", "y"] | None) -> bool:
        """Check that the weight has a type that kernels know, a size, and whole blocks along its rows' axis."""
        weight = self.weight
        computed = weight.float_type in _COMPUTED
        sized = computed and min(weight.z, weight.y, weight.x) > 0
        # A matmul's weight is transposed: its rows are the y values that make one output.
        row = weight.y if rows == "y" else weight.x
        return self.expect(sized, "weight", "F32, Q40 or Q80 values", spec_of(weight)) and self.expect(
            is_whole_blocks(weight.float_type, row), "weight", "rows of whole blocks", spec_of(weight)
        )

    def rows(self, what: str, tensor: Tensor, *, z: int | None = None, x: int | None = None) -> bool:
        """Check that the input or output has a row for each place of the batch, and what else is given."""
        z = tensor.z if z is None else z
        x = tensor.x if x is None else x
        expected = (z, self.context.n_batches, x)
        text = f"[{z}][{self.context.n_batches}][{x}]"
        return self.expect((tensor.z, tensor.y, tensor.x) == expected, what, text, shape_of(tensor))

    def same_rows(self) -> bool:
        """Check that the input has the batch's rows, and the output the same as the input."""
        return self.rows("input", self.source) and self.rows(
            "output", self.target, z=self.source.z, x=self.source.x
        )

    def columns(self, n_columns: int) -> bool:
        """Check that the input's rows split into so many groups, and those into whole blocks."""
        x = self.source.x
        if not self.expect(0 < n_columns <= x, "n_columns", f"1..{x}, the input's x", n_columns):
            return False
        whole = x % n_columns == 0 and is_whole_blocks(self.source.float_type, x // n_columns)
        text = f"rows of {n_columns} equal groups of whole blocks (n_columns)"
        return self.expect(whole, "input", text, shape_of(self.source))

    def f32(
        self,
        what: str,
        tensor: Tensor,
        *,
        x: int,
        or_wider: bool = False,
        z: int = 1,
        y: int | None = None,
        whole: bool = False,
        writable: bool = False,
    ) -> bool:
        """Check a tensor among the params: float32 of this shape, ``y`` being the batch unless given."""
        y = self.context.n_batches if y is None else y
        if not self.memory(what, tensor, writable=writable):
            return False
        fits = (
            tensor.float_type is FloatType.F32
            and (tensor.z, tensor.y) == (z, y)
            and (tensor.x == x or (or_wider and tensor.x > x))
        )
        text = f"F32 [{z}][{y}][{'>= ' if or_wider else ''}{x}]"
        return self.expect(fits, what, text, shape_of(tensor)) and self.expect(
            not whole or tensor.data.flags.c_contiguous, what, "a whole buffer", "some of its columns"
        )

    def in_place(self) -> bool:
        """Check that the output is the input."""
        same = _same(self.source, self.target)
        return self.expect(same, "output", "the input's memory (the op works in place)", "other memory")

    def apart(self, what: str, tensor: Tensor, *, or_same: bool = False) -> bool:
        """Check that writing the output changes nothing in ``tensor`` that is still to be read."""
        if or_same and _same(tensor, self.target):
            return True
        return self.disjoint(what, tensor, "the output", self.target)

    def disjoint(self, what: str, tensor: Tensor, other_what: str, other: Tensor) -> bool:
        """Check that two tensors share no byte."""
        expected = f"memory apart from that of {other_what}"
        return self.expect(not _overlap(tensor, other), what, expected, "memory that overlaps it")


def _every(results: Iterable[bool]) -> bool:
    """Tell whether all hold, having looked at all (``all`` stops at the first that doesn't)."""
    return False not in list(results)


def shape_of(tensor: Tensor) -> str:
    """Describe a tensor as messages do."""
    return f"{tensor.float_type.name} [{tensor.z}][{tensor.y}][{tensor.x}]"


def spec_of(weight: WeightSpec | None) -> str:
    """Describe a weight as messages do."""
    return f"{weight.float_type.name} z={weight.z} y={weight.y} x={weight.x}" if weight else "none"


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors share any byte; a case too hard to decide counts as yes."""
    if not np.may_share_memory(a.data, b.data):
        return False
    try:
        # Columns of one buffer interleave without sharing a byte: only this tells.
        return np.shares_memory(a.data, b.data, max_work=1000)  # type: ignore[arg-type]  # stubs know -1 and 0
    except np.exceptions.TooHardError:
        return True


def _same(a: Tensor, b: Tensor) -> bool:
    x, y = a.data, b.data
    return (x.ctypes.data, x.shape, x.strides, x.dtype) == (y.ctypes.data, y.shape, y.strides, y.dtype)
