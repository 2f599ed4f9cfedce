"""The types in which ggml stores tensors: their numbers, and what a block of each takes.

Source: ggml's ``enum ggml_type`` (``ggml.h``) and the block structures of ``ggml-common.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

__all__ = ["GgmlType"]


class GgmlType(IntEnum):
    """A stored type, by the number that files have for it."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39

    @property
    def block_values(self) -> int:
        """Values in a block, 1 where each stands alone."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return _BLOCKS[self][1]


_BLOCKS: Mapping[GgmlType, tuple[int, int]] = MappingProxyType(
    {
        GgmlType.F32: (1, 4),
        GgmlType.F16: (1, 2),
        GgmlType.BF16: (1, 2),
        GgmlType.Q4_0: (32, 18),
        GgmlType.Q4_1: (32, 20),
        GgmlType.Q5_0: (32, 22),
        GgmlType.Q5_1: (32, 24),
        GgmlType.Q8_0: (32, 34),
        GgmlType.IQ4_NL: (32, 18),
        GgmlType.MXFP4: (32, 17),
        GgmlType.Q2_K: (256, 84),
        GgmlType.Q3_K: (256, 110),
        GgmlType.Q4_K: (256, 144),
        GgmlType.Q5_K: (256, 176),
        GgmlType.Q6_K: (256, 210),
        GgmlType.IQ4_XS: (256, 136),
        GgmlType.IQ1_S: (256, 50),
        GgmlType.IQ1_M: (256, 56),
        GgmlType.IQ2_XXS: (256, 66),
        GgmlType.IQ2_XS: (256, 74),
        GgmlType.IQ2_S: (256, 82),
        GgmlType.IQ3_XXS: (256, 98),
        GgmlType.IQ3_S: (256, 110),
        GgmlType.TQ1_0: (256, 54),
        GgmlType.TQ2_0: (256, 66),
    }
)
