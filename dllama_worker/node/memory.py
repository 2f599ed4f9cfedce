"""How much memory a node needs, how much there is, and the pipes and buffers themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllama_ops.tensor import Tensor
from dllama_proto.messages import BufferConfig, NetConfig, NodeConfig, PipeConfig
from dllama_worker.errors import MachineError
from dllama_worker.node.kernel_memory import KernelMemory, MemoryPart
from dllama_worker.node.machine import cgroup_free_memory

__all__ = ["MemoryNeed", "NodeMemory", "available_memory", "check_memory", "memory_limit", "memory_need"]

#: How much of what the machine has free a session may take, unless told otherwise: it is not alone there.
_SHARE_OF_FREE = 0.9

#: What an op with its kernel takes beside its weight; what a sync takes for each node it goes to or comes from;
#: what a row of a pipe does that travels (a view of it for each such node).
_OP_BYTES = 8_192
_TRANSFER_BYTES = 512
_ROW_BYTES = 256

#: How many parts of a sum a refusal names.
_N_PARTS_SHOWN = 3

#: Whole cache lines, and wide enough for any vector register.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a configuration asks for.

    ``bookkeeping`` is what this program takes to run it, at most; ``kernels`` what its kernels state, their
    weights included, once it is known which they are.
    """

    pipes: int
    buffers: int
    weights: int
    bookkeeping: int = 0
    kernels: KernelMemory | None = None

    @property
    def total(self) -> int:
        """Bytes of the model's own, as the wire has them: without bookkeeping, and what kernels add."""
        return self.pipes + self.buffers + self.weights

    @property
    def in_all(self) -> int:
        """Everything that the node will take, as far as it is known."""
        weights = self.weights if self.kernels is None else self.kernels.total
        return self.pipes + self.buffers + self.bookkeeping + weights

    def parts(self) -> list[MemoryPart]:
        """Return what the sum is made of, the largest first."""
        kernels = [MemoryPart("weights", self.weights)] if self.kernels is None else self.kernels.parts
        parts = [
            MemoryPart("pipes", self.pipes),
            MemoryPart("buffers", self.buffers),
            MemoryPart("bookkeeping", self.bookkeeping),
            *kernels,
        ]
        return sorted(parts, key=lambda part: part.n_bytes, reverse=True)


def memory_need(net: NetConfig, node: NodeConfig) -> MemoryNeed:
    """Add up what a node will hold (C++ ``printNodeRequiredMemory``)."""
    return MemoryNeed(
        pipes=sum(pipe.size.n_bytes for pipe in net.pipes),
        buffers=sum(buffer.size.n_bytes for buffer in node.buffers),
        weights=sum(op.weight_size.n_bytes for segment in node.segments for op in segment.ops),
        bookkeeping=_bookkeeping(net, node),
    )


def _bookkeeping(net: NetConfig, node: NodeConfig) -> int:
    """Bound what ops and lanes take: a few bytes of configuration may ask for millions of rows to exchange."""
    syncs = [(sync.pipe_index, sync.sync_type) for segment in node.segments for sync in segment.syncs]
    n_ops = sum(len(segment.ops) for segment in node.segments)
    links = 2 * (net.n_nodes - 1)
    rows = links * len(set(syncs)) * net.n_batches
    return n_ops * _OP_BYTES + links * len(syncs) * _TRANSFER_BYTES + rows * _ROW_BYTES


def available_memory() -> int | None:
    """Return the bytes that this process can still have without swapping, or None where nobody says.

    As much as the machine has, but no more than its control group (a container, a service) leaves it.
    """
    bounds = [bound for bound in (_machine_memory(), cgroup_free_memory()) if bound is not None]
    return min(bounds, default=None)


def _machine_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def memory_limit(max_memory: int | None) -> int | None:
    """Return how many bytes a session may take: what was asked for, else a share of what is free now."""
    if max_memory is not None:
        return max_memory
    available = available_memory()
    return None if available is None else int(available * _SHARE_OF_FREE)


def check_memory(need: MemoryNeed, limit: int | None) -> None:
    """Refuse, before anything is allocated, what would take more than ``limit``. Raises MachineError."""
    if limit is not None and need.in_all > limit:
        largest = ", ".join(str(part) for part in need.parts()[:_N_PARTS_SHOWN] if part.n_bytes)
        raise MachineError(
            f"the configuration needs {need.in_all:,} bytes ({largest}), expected no more than {limit:,} "
            f"(--max-memory, or {_SHARE_OF_FREE:.0%} of what is free): use more nodes, a smaller model or a "
            "shorter --max-seq-len at the root"
        )


def _zeros(n_bytes: int) -> memoryview:
    memory = np.zeros(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + n_bytes].data


class NodeMemory:
    """The pipes and buffers of one session, zeroed and aligned.

    ``pipes`` and ``buffers`` are whole tensors in the order of their configs; ``pipe_bytes`` is each pipe's
    memory as bytes, which syncs send from and receive into.
    """

    def __init__(self, net: NetConfig, node: NodeConfig) -> None:
        self.pipe_bytes, self.pipes = _allocate(net.pipes)
        _, self.buffers = _allocate(node.buffers)


def _allocate(
    configs: Sequence[PipeConfig | BufferConfig],
) -> tuple[tuple[memoryview, ...], tuple[Tensor, ...]]:
    memory = tuple(_zeros(config.size.n_bytes) for config in configs)
    tensors = tuple(
        Tensor.over(config.size.float_type, view, z=config.size.z, y=config.size.y, x=config.size.x)
        for config, view in zip(configs, memory, strict=True)
    )
    return memory, tensors
