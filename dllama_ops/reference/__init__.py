"""The NumPy reference: the definition of every op, and the kernel of last resort.

One module for each kind of op. Each has the op's arithmetic as plain functions over arrays, which name the
C++ function that they mirror, and a thin kernel that binds them to memory. The modules of the same names in
:mod:`~dllama_ops.reference.specs` say all else that is to be known of an op. This module is the plugin.
"""

from __future__ import annotations

from dllama_ops.hookspecs import RegisterKernel, hookimpl
from dllama_ops.reference.specs import OPS

__all__ = ["PRIORITY", "dllama_register_kernels"]

#: Below any kernel that does not say otherwise.
PRIORITY = -100


@hookimpl
def dllama_register_kernels(register: RegisterKernel) -> None:
    """Offer a kernel for every pair that the C++ program computes, and for those that it should."""
    for spec in OPS:
        for quant, factory in spec.reference.items():
            register(spec.code, quant, factory, priority=PRIORITY)
