"""Turns stored blocks into numbers, a few at a time, by native code where there is some."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dllama_ops.native.blocks import can_decode_natively, decode_natively
from dllama_ops.quantization.ggml_types import GgmlType
from dllama_ops.quantization.reference import DECODERS

__all__ = ["can_decode", "decode"]

#: Values that are decoded at a time: what NumPy makes on the way then stays in the processor's cache.
_CHUNK = 1 << 16


def can_decode(ggml_type: GgmlType) -> bool:
    """Tell whether :func:`decode` knows a type."""
    return ggml_type in DECODERS


def decode(ggml_type: GgmlType, blocks: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
    """Decode whole ``blocks`` into ``out``, both of one dimension; a scale that is no number gives such values.

    Raises ValueError for a type that can't be decoded, and where the sizes do not fit each other.
    """
    decoder = DECODERS.get(ggml_type)
    if decoder is None:
        raise ValueError(f"blocks of {ggml_type.name} cannot be decoded")
    n_blocks, rest = divmod(out.size, ggml_type.block_values)
    if rest or blocks.size != n_blocks * ggml_type.block_bytes:
        raise ValueError(f"{blocks.size} bytes are not the {ggml_type.name} blocks of {out.size} values")
    if can_decode_natively(ggml_type) and blocks.flags.c_contiguous and out.flags.c_contiguous:
        decode_natively(ggml_type, blocks, out)
        return
    stored = blocks.reshape(n_blocks, ggml_type.block_bytes)
    values = out.reshape(n_blocks, ggml_type.block_values)
    step = max(1, _CHUNK // ggml_type.block_values)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, n_blocks, step):
            values[start : start + step] = decoder(stored[start : start + step])
