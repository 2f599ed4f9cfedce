"""The two hooks through which plugins offer kernels. pluggy never runs in the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pluggy

from dllama_ops.kernel import BoundOp, CompiledSegment, KernelFactory
from dllama_proto.enums import OpCode, OpQuantType

__all__ = [
    "PROJECT_NAME",
    "RegisterKernel",
    "dllama_compile_segment",
    "dllama_register_kernels",
    "hookimpl",
]

#: pluggy's project name, and the entry-point group of plugins.
PROJECT_NAME = "dllama_ops"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class RegisterKernel(Protocol):
    """What a plugin is given to offer its kernels with."""

    def __call__(
        self,
        code: OpCode,
        quant: OpQuantType,
        factory: KernelFactory,
        *,
        priority: int = 0,
        variant: str = "",
    ) -> None:
        """Offer a kernel for one key. The highest priority wins.

        The kernels that come with this package have less than 0, the native ones -50 and a little more, the NumPy
        reference -100: a plugin's own come first unless it says otherwise.

        ``variant`` tells several kernels of one plugin and key apart (an instruction set, a device);
        people ask for it with ``--kernels PLUGIN:VARIANT``. Raises TypeError or ValueError on what cannot
        be a kernel; a plugin from which that came, or anything else, contributes nothing and is reported.
        """


@hookspec
def dllama_register_kernels(register: RegisterKernel) -> None:
    """Call ``register`` once for every kernel that this plugin offers on this machine."""


@hookspec
def dllama_compile_segment(ops: Sequence[BoundOp], n_threads: int) -> CompiledSegment | None:
    """Take a whole segment over: return what runs it in one call, or None to let it run op by op.

    Called once a segment, after its weights are complete. ``ops`` may have kernels of other plugins; take
    the segment only if the result is the same. :mod:`dllama_ops.segments` says who is asked first.
    """
