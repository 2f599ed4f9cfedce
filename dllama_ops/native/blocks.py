"""Stored weights by native code: blocks into numbers, numbers into Q40 blocks. Without the GIL."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dllama_ops import native

__all__ = ["can_decode_natively", "decode_natively", "quantize_natively"]


@cache
def _fastest() -> str | None:
    return None if native.unavailable is not None else native._core.kernel_sets()[-1]


@cache
def can_decode_natively(ggml_type: int) -> bool:
    """Tell whether there is native code for a stored type."""
    fastest = _fastest()
    return fastest is not None and native._core.has_block_decoder(fastest, ggml_type)


def decode_natively(ggml_type: int, blocks: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
    """Decode blocks that :func:`can_decode_natively` said yes to. Raises ValueError where sizes do not fit."""
    native._core.decode_blocks(_fastest() or "", ggml_type, blocks, out)


def quantize_natively(values: npt.NDArray[np.float32], blocks: npt.NDArray[Any]) -> bool:
    """Quantise values to Q40 blocks; return False where there is no native code."""
    fastest = _fastest()
    if fastest is None:
        return False
    native._core.quantize_q40(fastest, values, blocks.view(np.uint8))
    return True
