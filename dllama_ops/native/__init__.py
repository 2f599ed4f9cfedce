"""Native kernels: every op in C++, once for each instruction set that this processor has.

This module is the plugin. Each instruction set is a variant (``baseline``, ``avx2``, ``avx512``, ``neon``), the
fastest with the highest priority. Where the extension was not built, nothing is offered and ``unavailable`` says
why.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from dllama_ops.hookspecs import RegisterKernel, hookimpl
from dllama_ops.kernel import BoundOp, CompiledSegment
from dllama_proto.enums import OpCode, OpQuantType

__all__ = ["PRIORITY", "dllama_compile_segment", "dllama_register_kernels", "read_bandwidth", "unavailable"]

#: Of the slowest variant; each faster one has one more. Below 0, so that a plugin that somebody installs comes
#: first unless it says otherwise; above the reference's -100.
PRIORITY = -50

#: Why there are no native kernels, or None where there are.
unavailable: str | None = None

if find_spec("dllama_ops.native._core") is None:
    unavailable = "the extension module was not built; install again on a machine with a C++17 compiler"
else:
    try:
        from dllama_ops.native import _core as _core
    except ImportError as error:
        unavailable = f"the extension module cannot be loaded: {error}"


@hookimpl
def dllama_register_kernels(register: RegisterKernel) -> None:
    """Offer a kernel for every key of the reference, in each variant that this processor can run."""
    if unavailable is not None:
        return
    from dllama_ops.native.kernel import NativeFactory

    for rank, variant in enumerate(_core.kernel_sets()):
        for code in OpCode:
            for quant in OpQuantType:
                if _core.has_kernel(variant, code, quant):
                    factory = NativeFactory(variant)
                    register(code, quant, factory, priority=PRIORITY + rank, variant=variant)


def dllama_compile_segment(ops: Sequence[BoundOp], n_threads: int) -> CompiledSegment | None:
    """Take any segment that has a native kernel; kernels of others in it are called in their place."""
    from dllama_ops.native.segment import compile_native

    return compile_native(ops, n_threads)


if unavailable is None:  # else this plugin is none of those that may take whole segments
    hookimpl(dllama_compile_segment)


def read_bandwidth(n_bytes: int, n_passes: int) -> float:
    """Return the bytes per second that one thread reads from memory, the fastest of ``n_passes`` over ``n_bytes``.

    Only where the extension is there.
    """
    return _core.read_bandwidth(n_bytes, n_passes)
