"""Kernels through PyTorch: MATMUL and MULTIHEAD_ATT, on the CPU and, where there is one, on a CUDA device.

This module is the plugin; each device is a variant, ``cpu`` and ``cuda``. See README.md for how it is chosen.
"""

from __future__ import annotations

import torch

from dllama_ops import Kernel, KernelFactory, OpContext, RegisterKernel, hookimpl
from dllama_ops_torch.attention import TorchMultiHeadAtt
from dllama_ops_torch.matmul import TorchMatmul
from dllama_proto.enums import OpCode, OpQuantType

__all__ = ["PRIORITY", "devices", "dllama_register_kernels", "kernels_on"]

#: Below every other kernel, the NumPy reference (-100) included: these run where somebody asks for them.
PRIORITY = -200

_KERNELS = (
    (OpCode.MATMUL, OpQuantType.F32_F32_F32, TorchMatmul),
    (OpCode.MATMUL, OpQuantType.Q80_Q40_F32, TorchMatmul),
    (OpCode.MULTIHEAD_ATT, OpQuantType.F32_F32_F32, TorchMultiHeadAtt),
)


def devices() -> list[torch.device]:
    """Return the devices that kernels run on here: the CPU first, then the current CUDA device, if any."""
    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found.append(torch.device("cuda"))
    return found


def kernels_on(device: torch.device) -> list[tuple[OpCode, OpQuantType, KernelFactory]]:
    """Return what makes the kernels of a device, with the op code and quant key of each."""
    return [(code, quant, _factory(kernel, device)) for code, quant, kernel in _KERNELS]


@hookimpl
def dllama_register_kernels(register: RegisterKernel) -> None:
    """Offer every kernel once for each device; ``--kernels torch`` means the last of them."""
    for rank, device in enumerate(devices()):
        for code, quant, factory in kernels_on(device):
            register(code, quant, factory, priority=PRIORITY + rank, variant=device.type)


def _factory(kernel: type[TorchMatmul | TorchMultiHeadAtt], device: torch.device) -> KernelFactory:
    def make(context: OpContext) -> Kernel:
        return kernel(context, device)

    make.__name__ = kernel.__name__  # as people see it in a listing
    return make
