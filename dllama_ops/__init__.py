"""Compute kernels of a Distributed-Llama node, as plugins."""

from dllama_ops.contract import check_context
from dllama_ops.errors import (
    KernelChoiceError,
    KernelClash,
    KernelDataError,
    KernelNotFound,
    OpsError,
    PluginFault,
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
    WeightData,
)
from dllama_ops.plugins import OpsPluginManager, make_plugin_manager
from dllama_ops.segments import SegmentChoice, SegmentCompiler, SequentialSegment, compile_segment
from dllama_ops.table import KernelChoice, KernelEntry, KernelTable, build_kernel_table
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_proto.enums import FloatType, OpCode, OpQuantType

__all__ = [
    "BaseKernel",
    "BoundOp",
    "CompiledSegment",
    "FloatType",
    "Kernel",
    "KernelChoice",
    "KernelChoiceError",
    "KernelClash",
    "KernelDataError",
    "KernelEntry",
    "KernelFactory",
    "KernelKey",
    "KernelNotFound",
    "KernelTable",
    "OpCode",
    "OpContext",
    "OpQuantType",
    "OpsError",
    "OpsPluginManager",
    "PluginFault",
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
    "make_plugin_manager",
]
