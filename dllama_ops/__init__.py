"""Compute kernels of a Distributed-Llama node, as plugins.

A plugin is a module with functions marked :data:`hookimpl` (see :mod:`dllama_ops.hookspecs`), announced in
the entry-point group ``dllama_ops``. It sees an op as an :class:`OpContext` and offers what makes a
:class:`Kernel` of it. :mod:`dllama_ops.testing` tells whether a kernel is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dllama_ops.contract import check_context
    from dllama_ops.errors import (
        KernelChoiceError,
        KernelClash,
        KernelDataError,
        KernelFailed,
        KernelNotFound,
        OpsError,
        PluginFailure,
        WeightPieceError,
    )
    from dllama_ops.hookspecs import RegisterKernel, hookimpl
    from dllama_ops.kernel import (
        BaseKernel,
        BoundOp,
        CompiledSegment,
        Kernel,
        KernelFactory,
        KernelKey,
        OpContext,
        ProfiledSegment,
        WeightData,
    )
    from dllama_ops.memory_need import KernelNeed, kernel_need
    from dllama_ops.plugins import OpsPluginManager, make_plugin_manager
    from dllama_ops.segments import SegmentChoice, SegmentCompiler, SequentialSegment, compile_segment
    from dllama_ops.table import KernelChoice, KernelEntry, KernelTable, build_kernel_table
    from dllama_ops.tensor import Tensor, WeightSpec

    __version__: str

__all__ = [
    "BaseKernel",
    "BoundOp",
    "CompiledSegment",
    "Kernel",
    "KernelChoice",
    "KernelChoiceError",
    "KernelClash",
    "KernelDataError",
    "KernelEntry",
    "KernelFactory",
    "KernelFailed",
    "KernelKey",
    "KernelNeed",
    "KernelNotFound",
    "KernelTable",
    "OpContext",
    "OpsError",
    "OpsPluginManager",
    "PluginFailure",
    "ProfiledSegment",
    "RegisterKernel",
    "SegmentChoice",
    "SegmentCompiler",
    "SequentialSegment",
    "Tensor",
    "WeightData",
    "WeightPieceError",
    "WeightSpec",
    "build_kernel_table",
    "check_context",
    "compile_segment",
    "hookimpl",
    "kernel_need",
    "make_plugin_manager",
]

_HOMES = {
    "dllama_ops.contract": ("check_context",),
    "dllama_ops.errors": (
        "KernelChoiceError",
        "KernelClash",
        "KernelDataError",
        "KernelFailed",
        "KernelNotFound",
        "OpsError",
        "PluginFailure",
        "WeightPieceError",
    ),
    "dllama_ops.hookspecs": ("RegisterKernel", "hookimpl"),
    "dllama_ops.kernel": (
        "BaseKernel",
        "BoundOp",
        "CompiledSegment",
        "Kernel",
        "KernelFactory",
        "KernelKey",
        "OpContext",
        "ProfiledSegment",
        "WeightData",
    ),
    "dllama_ops.memory_need": ("KernelNeed", "kernel_need"),
    "dllama_ops.plugins": ("OpsPluginManager", "make_plugin_manager"),
    "dllama_ops.segments": ("SegmentChoice", "SegmentCompiler", "SequentialSegment", "compile_segment"),
    "dllama_ops.table": ("KernelChoice", "KernelEntry", "KernelTable", "build_kernel_table"),
    "dllama_ops.tensor": ("Tensor", "WeightSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command's help must not wait for NumPy."""
    if name == "__version__":
        from dllama_proto.version import installed_version

        return installed_version()
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value
