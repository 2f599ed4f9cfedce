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
from dllama_worker.machine import cgroup_free_memory

__all__ = ["MemoryNeed", "NodeMemory", "available_memory", "check_memory", "memory_need"]

#: Whole cache lines, and wide enough for any vector register.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a configuration asks for."""

    pipes: int
    buffers: int
    weights: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.pipes + self.buffers + self.weights


def memory_need(net: NetConfig, node: NodeConfig) -> MemoryNeed:
    """Add up what a node will hold (C++ ``printNodeRequiredMemory``)."""
    return MemoryNeed(
        pipes=sum(pipe.size.n_bytes for pipe in net.pipes),
        buffers=sum(buffer.size.n_bytes for buffer in node.buffers),
        weights=sum(op.weight_size.n_bytes for segment in node.segments for op in segment.ops),
    )


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


def check_memory(need: MemoryNeed, available: int | None) -> None:
    """Refuse, before anything is allocated, what this machine cannot hold. Raises MachineError."""
    if available is not None and need.total > available:
        raise MachineError(
            f"the configuration needs {need.total:,} bytes ({need.weights:,} of them weights), this machine "
            f"has {available:,} free: use more nodes, a smaller model or a shorter --max-seq-len at the root"
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
