"""What the kernels of a node take together, and what most of it is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dllama_ops.blame import Blame
from dllama_ops.kernel import OpContext
from dllama_ops.memory_need import KernelNeed, kernel_need, total_need
from dllama_ops.table import KernelEntry
from dllama_proto.formatting import format_bytes
from dllama_worker.errors import InternalError

__all__ = ["KernelMemory", "MemoryPart", "kernel_memory"]


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes, and what for; ``n_wire_bytes`` what the same takes on the wire, where that is something."""

    what: str
    n_bytes: int
    n_wire_bytes: int | None = None

    def __str__(self) -> str:
        text = f"{self.what} {format_bytes(self.n_bytes)}"
        if self.n_wire_bytes is not None and self.n_bytes > self.n_wire_bytes:
            text += f" padded from {format_bytes(self.n_wire_bytes)}"
        return text


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """Bytes of all kernels of a node, weights included, and the parts that they add up from."""

    parts: tuple[MemoryPart, ...]

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return sum(part.n_bytes for part in self.parts)


def kernel_memory(planned: Iterable[tuple[OpContext, KernelEntry]]) -> KernelMemory:
    """Add up what the kernels of verified ops state.

    Raises KernelFailed where an installed plugin states nonsense, InternalError where this package does.
    """
    needs: list[KernelNeed] = []
    kept: dict[str, int] = {}
    sent: dict[str, int] = {}
    busiest, most = "", 0
    for context, entry in planned:
        try:
            with Blame(entry.plugin, f"state the memory of {context.where}"):
                need = kernel_need(entry.factory, context)
        except TypeError as error:
            raise InternalError(str(error)) from error
        needs.append(need)
        name = context.key.code.name.lower()
        if context.weight is not None:
            kept[name] = kept.get(name, 0) + need.weight
            sent[name] = sent.get(name, 0) + context.weight.n_bytes
        if need.passing > most:
            busiest, most = name, need.passing
    total = total_need(needs)
    return KernelMemory(
        (
            *(MemoryPart(f"{name} weights", kept[name], sent[name]) for name in kept),
            MemoryPart("what kernels keep beside", total.lasting),
            MemoryPart("what kernels share", sum(total.shared.values())),
            MemoryPart(f"temporary memory of {busiest}", total.passing),
        )
    )
