"""Every op that kernels are known for: one :class:`~dllama_ops.op_spec.OpSpec` each, a module for each kind.

A module has, for each of its ops, the check of what a kernel may rely on, the random case, and the spec that
names them. The checks are what the C++ init functions assert (``initMatmulForward`` and its like in
``nn-cpu-ops.cpp``), and everything else that a kernel needs to stay inside its memory. Memories of random
cases that no kernel has a business to read are full of NaN.
"""

from __future__ import annotations

from dllama_ops.op_spec import OpRegistry
from dllama_ops.reference.specs import (
    activation,
    arithmetic,
    attention,
    matmul,
    moe,
    movement,
    norm,
    rope,
)

__all__ = ["OPS"]

_FAMILIES = (arithmetic, movement, norm, matmul, rope, attention, activation, moe)

#: The ops that this process has kernels for; grows by ``OPS.register``.
OPS = OpRegistry(
    sorted((spec for family in _FAMILIES for spec in family.SPECS), key=lambda spec: spec.code)
)
