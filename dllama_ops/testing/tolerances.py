"""What the output of a kernel is allowed, by key."""

from __future__ import annotations

from dllama_ops.kernel import KernelKey
from dllama_ops.reference.specs import OPS
from dllama_ops.tolerance import EXACT, Tolerance
from dllama_proto.enums import FloatType, OpQuantType

__all__ = ["EXACT", "Tolerance", "tolerance_of"]

#: Output types; conversions to Q80 follow one exact rule, so even the bits of a block agree.
_OUTPUT = {quant: FloatType[quant.name.rpartition("_")[2]] for quant in OpQuantType}


def tolerance_of(key: KernelKey) -> Tolerance:
    """Return what the output of a kernel for this key is allowed."""
    return EXACT if _OUTPUT[key.quant] is FloatType.Q80 else OPS.get(key.code).tolerance
