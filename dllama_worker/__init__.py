"""A Distributed-Llama node: protocol and kernels composed into a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dllama_worker.root.completion import Completion, StopReason, Timings
    from dllama_worker.root.options import ClusterOptions, GenerationOptions
    from dllama_worker.root.root import Root
    from dllama_worker.worker.options import WorkerOptions
    from dllama_worker.worker.worker import Worker

    __version__: str

__all__ = [
    "ClusterOptions",
    "Completion",
    "GenerationOptions",
    "Root",
    "StopReason",
    "Timings",
    "Worker",
    "WorkerOptions",
]

_HOMES = {
    "ClusterOptions": "dllama_worker.root.options",
    "Completion": "dllama_worker.root.completion",
    "GenerationOptions": "dllama_worker.root.options",
    "Root": "dllama_worker.root.root",
    "StopReason": "dllama_worker.root.completion",
    "Timings": "dllama_worker.root.completion",
    "Worker": "dllama_worker.worker.worker",
    "WorkerOptions": "dllama_worker.worker.options",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the commands' help must not wait for NumPy."""
    if name == "__version__":
        from dllama_proto.version import installed_version

        return installed_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
