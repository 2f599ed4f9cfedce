"""What the stored blocks of each type are as numbers: the definition, in NumPy.

Each function takes blocks, shape (n, bytes of a block), and returns float32 values, shape (n, values of a block).
Products are rounded to float32 one after another, as ggml's ``dequantize_row_*`` (``ggml-quants.c``) do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from dllama_ops.quantization.ggml_types import GgmlType

__all__ = ["DECODERS", "Decoder"]

_Bytes = npt.NDArray[np.uint8]
_Values = npt.NDArray[np.float32]
Decoder = Callable[[_Bytes], _Values]

#: The 16 values of IQ4, by their codes.
_IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)

#: The 16 values of MXFP4 (E2M1), doubled.
_E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)


def _f16(blocks: _Bytes, at: int) -> _Values:
    """Return the half at a byte of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _u32(blocks: _Bytes, at: int) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(blocks[:, at : at + 4]).view("<u4")


def _nibbles(packed: _Bytes) -> _Bytes:
    """Return low nibbles, then high ones."""
    return np.concatenate((packed & 15, packed >> 4), axis=-1)


def _bits(packed: _Bytes, width: int) -> _Bytes:
    """Return fields of ``width`` bits, shape (..., 8 / width, bytes): the lowest of all bytes first."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
    return (packed[..., None, :] >> shifts) & np.uint8((1 << width) - 1)


def _f32(blocks: _Bytes) -> _Values:
    return np.ascontiguousarray(blocks).view("<f4")


def _half(blocks: _Bytes) -> _Values:
    return _f16(blocks, 0)


def _bf16(blocks: _Bytes) -> _Values:
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: _Bytes) -> _Values:
    return _f16(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: _Bytes) -> _Values:
    return _f16(blocks, 0) * _nibbles(blocks[:, 4:]) + _f16(blocks, 2)


def _fifth_bits(blocks: _Bytes, at: int) -> _Bytes:
    return ((_u32(blocks, at) >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8) << np.uint8(4)


def _q5_0(blocks: _Bytes) -> _Values:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return _f16(blocks, 0) * (codes.astype(np.float32) - 16)


def _q5_1(blocks: _Bytes) -> _Values:
    return _f16(blocks, 0) * (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)) + _f16(blocks, 2)


def _q8_0(blocks: _Bytes) -> _Values:
    codes: npt.NDArray[np.int8] = blocks[:, 2:].view(np.int8)
    return _f16(blocks, 0) * codes.astype(np.float32)


def _iq4_nl(blocks: _Bytes) -> _Values:
    return _f16(blocks, 0) * _IQ4_VALUES[_nibbles(blocks[:, 2:])]


def _mxfp4(blocks: _Bytes) -> _Values:
    # The exponent's half: values are doubled. Codes 0 and 1 give numbers that have no exponent of their own.
    exponent = blocks[:, :1].astype(np.uint32)
    bits = np.where(exponent < 2, np.uint32(0x200000) << exponent, (exponent - 1) << 23)
    return bits.view(np.float32) * _E2M1_DOUBLED[_nibbles(blocks[:, 1:])]


def _q2_k(blocks: _Bytes) -> _Values:
    scales, d, low = blocks[:, :16], _f16(blocks, 80), _f16(blocks, 82)
    codes = _bits(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    return _scaled_less(d * (scales & 15), codes, low * (scales >> 4))


def _q3_k(blocks: _Bytes) -> _Values:
    low = _bits(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 8, 32)
    high = _bits(blocks[:, :32], 1)
    codes = (low.astype(np.int8) - ((high ^ 1) << 2).astype(np.int8)).reshape(-1, 16, 16)
    packed = blocks[:, 96:108]
    top = _bits(packed[:, 8:], 2).reshape(-1, 16)
    scales = (_nibbles(packed[:, :8]) | (top << 4)).astype(np.int8) - 32
    scale = _f16(blocks, 108) * scales
    return (scale[:, :, None] * codes).reshape(len(blocks), 256)


def _scales_and_minima(packed: _Bytes) -> tuple[_Bytes, _Bytes]:
    """Unpack the eight scales and minima of 6 bits of Q4_K and Q5_K."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 63, (rest & 15) | ((first >> 6) << 4)), axis=1)
    minima = np.concatenate((second & 63, (rest >> 4) | ((second >> 6) << 4)), axis=1)
    return scales, minima


def _q4_k(blocks: _Bytes) -> _Values:
    codes = _bits(blocks[:, 16:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    return _scaled_with_minima(blocks, codes)


def _q5_k(blocks: _Bytes) -> _Values:
    low = _bits(blocks[:, 48:].reshape(-1, 4, 32), 4).reshape(-1, 8, 32)
    return _scaled_with_minima(blocks, low | _bits(blocks[:, 16:48], 1) << np.uint8(4))


def _scaled_with_minima(blocks: _Bytes, codes: _Bytes) -> _Values:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    return _scaled_less(_f16(blocks, 0) * scales, codes, _f16(blocks, 2) * minima)


def _scaled_less(scales: _Values, codes: _Bytes, minima: _Values) -> _Values:
    """Return codes, shape (blocks, groups, values), each group with its own scale, less its minimum."""
    values: _Values = scales[:, :, None] * codes - minima[:, :, None]
    return values.reshape(len(scales), -1)


def _q6_k(blocks: _Bytes) -> _Values:
    low = _bits(blocks[:, :128].reshape(-1, 2, 64), 4).reshape(-1, 8, 32)
    high = _bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 8, 32)
    codes = ((low | (high << 4)).astype(np.int8) - 32).reshape(-1, 16, 16)
    scale = _f16(blocks, 208) * blocks[:, 192:208].view(np.int8)
    return (scale[:, :, None] * codes).reshape(len(blocks), 256)


def _iq4_xs(blocks: _Bytes) -> _Values:
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2")
    top = ((high >> np.arange(0, 16, 2, dtype=np.uint16)) & 3).astype(np.uint8)
    low = _bits(blocks[:, 4:8, None], 4).reshape(-1, 8)
    scale = _f16(blocks, 0) * ((low | (top << 4)).astype(np.int8) - 32)
    values = _IQ4_VALUES[_nibbles(blocks[:, 8:].reshape(-1, 8, 16))]
    return (scale[:, :, None] * values).reshape(len(blocks), 256)


#: Every type that can be decoded. Those whose codes need ggml's tables of lattice points (IQ1 to IQ3) are left
#: out.
DECODERS: Mapping[GgmlType, Decoder] = MappingProxyType(
    {
        GgmlType.F32: _f32,
        GgmlType.F16: _half,
        GgmlType.BF16: _bf16,
        GgmlType.Q4_0: _q4_0,
        GgmlType.Q4_1: _q4_1,
        GgmlType.Q5_0: _q5_0,
        GgmlType.Q5_1: _q5_1,
        GgmlType.Q8_0: _q8_0,
        GgmlType.Q2_K: _q2_k,
        GgmlType.Q3_K: _q3_k,
        GgmlType.Q4_K: _q4_k,
        GgmlType.Q5_K: _q5_k,
        GgmlType.Q6_K: _q6_k,
        GgmlType.IQ4_NL: _iq4_nl,
        GgmlType.IQ4_XS: _iq4_xs,
        GgmlType.MXFP4: _mxfp4,
    }
)
