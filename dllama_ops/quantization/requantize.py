"""Numbers into Q40 blocks, as model converters do it: better be exact, for it is done once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dllama_ops.native.blocks import quantize_natively
from dllama_proto.floats import BLOCK_SIZE, Q40_BLOCK

__all__ = ["quantize_by_numpy", "quantize_like_converter"]

#: Values that are quantised at a time: what NumPy makes on the way then stays in the processor's cache.
_CHUNK = 1 << 16


def quantize_like_converter(values: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """Quantise values of one dimension, whole blocks of them, to Q40.

    To the last bit as ``writeQuantizedQ40Tensor`` of the C++ project's converter: the value of the largest
    magnitude becomes -8 times the scale, and codes are rounded with the scale before it is rounded to a half.
    """
    blocks = np.empty(len(values.reshape(-1, BLOCK_SIZE)), dtype=Q40_BLOCK)
    if values.flags.c_contiguous and quantize_natively(values, blocks):
        return blocks
    return quantize_by_numpy(values)


def quantize_by_numpy(values: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """Do the same in NumPy: the definition."""
    groups = values.reshape(-1, BLOCK_SIZE)
    blocks = np.empty(len(groups), dtype=Q40_BLOCK)
    step = _CHUNK // BLOCK_SIZE
    for start in range(0, len(groups), step):
        _quantize(groups[start : start + step], blocks[start : start + step])
    return blocks


def _quantize(groups: npt.NDArray[np.float32], blocks: npt.NDArray[np.void]) -> None:
    high, low = groups.max(axis=1), groups.min(axis=1)
    d = np.where(-low > high, low, high) / np.float32(-8)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(d != 0, np.float32(1) / d, np.float32(0))
        codes = np.clip(groups * inverse[:, None] + np.float32(8.5), 0, 15).astype(np.uint8)
        blocks["d"] = d.astype("<f2")
    blocks["qs"] = codes[:, :16] | (codes[:, 16:] << 4)
