"""What memory a kernel takes, stated before it is made.

A factory may have ``memory_need(context)``, which returns a :class:`KernelNeed`; for a factory without it
:func:`kernel_need` assumes what a kernel usually takes. A node adds the needs of all its kernels up and holds the
sum against its limit before it makes one. A factory whose kernels have memory that Python does not know of may
also have ``memory_held()``, which returns how many bytes of such memory there are now: the conformance kit
(:mod:`dllama_ops.testing`) compares.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dllama_ops.kernel import KernelFactory, OpContext
from dllama_ops.tensor import Tensor

__all__ = ["KernelNeed", "assumed_need", "batch_values", "kernel_need", "total_need"]


#: Bytes of objects and small arrays that any kernel takes while it runs.
_SMALL = 1 << 18


@dataclass(frozen=True, slots=True)
class KernelNeed:
    """Bytes that one kernel takes beside the pipes and buffers it is given, and beside its own few objects.

    ``weight`` and ``lasting`` (whatever else it keeps) are there from when it is made until the session ends.
    ``passing`` is there only while it is made, finishes its weight or runs, which one kernel does at a time: of
    a node's kernels the one that takes most counts. ``shared`` is kept by all kernels that name the same key,
    once, as large as the largest of them says.
    """

    weight: int = 0
    lasting: int = 0
    passing: int = 0
    shared: Mapping[Hashable, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def total(self) -> int:
        """Bytes of this kernel alone."""
        return self.weight + self.lasting + self.passing + sum(self.shared.values())


def batch_values(context: OpContext, tensor: Tensor) -> int:
    """Return how many values of a tensor the largest batch has, all z together."""
    return tensor.z * context.n_batches * tensor.x


def assumed_need(context: OpContext) -> KernelNeed:
    """Return what a kernel is taken to need that does not say.

    That is its weight as on the wire, and while it runs its input and output twice more as float32, and small
    things.
    """
    values = batch_values(context, context.input) + batch_values(context, context.output)
    return KernelNeed(weight=context.weight.n_bytes if context.weight else 0, passing=_SMALL + 8 * values)


def kernel_need(factory: KernelFactory, context: OpContext) -> KernelNeed:
    """Return what the kernel of an op will take: what its factory states, else what is assumed.

    The context has been verified. Raises TypeError where a factory states anything but a KernelNeed.
    """
    state: Any = getattr(factory, "memory_need", None)
    if state is None:
        return assumed_need(context)
    need = state(context)
    if not isinstance(need, KernelNeed):
        raise TypeError(f"expected memory_need of {factory!r} to return a KernelNeed, got {need!r}")
    return need


def total_need(needs: Iterable[KernelNeed]) -> KernelNeed:
    """Add up kernels of one node: what is shared counts once, what passes as much as the largest."""
    weight = lasting = passing = 0
    shared: dict[Hashable, int] = {}
    for need in needs:
        weight += need.weight
        lasting += need.lasting
        passing = max(passing, need.passing)
        for key, n_bytes in need.shared.items():
            shared[key] = max(n_bytes, shared.get(key, 0))
    return KernelNeed(weight, lasting, passing, MappingProxyType(shared))
