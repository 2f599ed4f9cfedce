"""Float types: how many bytes they take, and exact conversion to and from float32.

Bit-exact with the x86-64 (AVX2) build of the C++ program, except where its own result is undefined
behaviour (a block whose scale is so small that its reciprocal overflows). Sources: ``nn-quants.cpp``
(``quantizeF32toQ80``, ``quantizeF32toQ40``, ``dequantizeQ80toF32``, ``dequantizeQ40toF32``) and
``nn-core.cpp`` (``getBytes``). Everything is vectorised over blocks; nothing here reads the wire.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dllama_proto.enums import FloatType

__all__ = [
    "BLOCK_SIZE",
    "Q40_BLOCK",
    "Q80_BLOCK",
    "SYNC_TYPES",
    "bytes_to_values",
    "dequantize_q40",
    "dequantize_q80",
    "f16_to_f32",
    "f32_to_f16",
    "is_whole_blocks",
    "n_bytes",
    "quantize_q40",
    "quantize_q80",
    "storage_dtype",
]

#: Values in a Q40 or Q80 block.
BLOCK_SIZE = 32

#: The weights that nodes compute with, and what activations are sent as beside each (the C++ program's MATMUL).
SYNC_TYPES = {FloatType.F32: FloatType.F32, FloatType.Q40: FloatType.Q80}

#: One Q40 block, 18 bytes: scale, then nibbles (low ones are values 0-15, high ones 16-31).
Q40_BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", (16,))])

#: One Q80 block, 34 bytes: scale, then signed values.
Q80_BLOCK = np.dtype([("d", "<f2"), ("qs", "i1", (32,))])

_F32 = np.dtype("<f4")
_F16 = np.dtype("<f2")

#: values a unit holds, bytes a unit takes, NumPy type of a unit
_LAYOUT: dict[FloatType, tuple[int, int, np.dtype[Any]]] = {
    FloatType.F32: (1, 4, _F32),
    FloatType.F16: (1, 2, _F16),
    FloatType.Q40: (BLOCK_SIZE, Q40_BLOCK.itemsize, Q40_BLOCK),
    FloatType.Q80: (BLOCK_SIZE, Q80_BLOCK.itemsize, Q80_BLOCK),
}


def _layout(float_type: FloatType) -> tuple[int, int, np.dtype[Any]]:
    try:
        return _LAYOUT[float_type]
    except KeyError:
        raise ValueError(f"float type {float_type!r} has no storage") from None


def is_whole_blocks(float_type: FloatType, n: int) -> bool:
    """Tell whether ``n`` values can be stored in this type without a broken block."""
    return n % _layout(float_type)[0] == 0


def n_bytes(float_type: FloatType, n: int) -> int:
    """Return the bytes that ``n`` values take (C++ ``getBytes``).

    Raises ValueError where the type has no storage or ``n`` is not a whole number of blocks.
    """
    values, size, _ = _layout(float_type)
    if n < 0 or n % values:
        raise ValueError(f"expected whole {float_type.name} blocks of {values} values, got {n}")
    return n // values * size


def storage_dtype(float_type: FloatType) -> np.dtype[Any]:
    """Return the NumPy type of one stored unit: a number, or a block of 32 of them."""
    return _layout(float_type)[2]


def bytes_to_values(float_type: FloatType, data: Any) -> npt.NDArray[np.float32]:
    """Decode a buffer of stored values to float32, shape (n,).

    Raises ValueError where the buffer does not hold whole units.
    """
    units = np.frombuffer(data, dtype=storage_dtype(float_type))
    if float_type is FloatType.F32:
        return units
    if float_type is FloatType.F16:
        return f16_to_f32(units)
    if float_type is FloatType.Q40:
        return dequantize_q40(units)
    return dequantize_q80(units)


def f32_to_f16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Round to half precision, ties to even; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(_F16)


def f16_to_f32(values: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Widen half precision; exact."""
    return values.astype(_F32)


def _reciprocal(d: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    inverse = np.zeros_like(d)
    with np.errstate(over="ignore"):
        np.divide(np.float32(1), d, out=inverse, where=d != 0)
    return inverse


def quantize_q80(values: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """Quantise (..., n) float32 to (..., n / 32) Q80 blocks (C++ ``quantizeF32toQ80``).

    The scale is max|x| / 127 in float32; values are multiplied by its reciprocal and rounded half to even,
    and only then is the scale rounded to half precision. Raises ValueError where n is not whole blocks.
    """
    if values.shape[-1] % BLOCK_SIZE:
        raise ValueError(
            f"expected rows of whole Q80 blocks of {BLOCK_SIZE} values, got {values.shape[-1]}"
        )
    rows = values.reshape(*values.shape[:-1], -1, BLOCK_SIZE)
    d = np.abs(rows).max(axis=-1, initial=0) / np.float32(127)
    blocks = np.empty(rows.shape[:-1], dtype=Q80_BLOCK)
    blocks["d"] = f32_to_f16(d)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(rows * _reciprocal(d)[..., None])
        # Infinite and NaN products arise only where C++ is undefined; they become 0 there, as on x86.
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    blocks["qs"] = scaled
    return blocks


def quantize_q40(values: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
    """Quantise (..., n) float32 to (..., n / 32) Q40 blocks (C++ ``quantizeF32toQ40``).

    The scale is the value of largest magnitude (the first of equals) divided by -8. Codes are x / d + 8.5,
    truncated, as one fused multiply-add: float64 holds the product exactly, so one rounding remains.
    Raises ValueError where n is not whole blocks.
    """
    if values.shape[-1] % BLOCK_SIZE:
        raise ValueError(
            f"expected rows of whole Q40 blocks of {BLOCK_SIZE} values, got {values.shape[-1]}"
        )
    rows = values.reshape(*values.shape[:-1], -1, BLOCK_SIZE)
    largest = np.abs(rows).argmax(axis=-1)
    d = np.take_along_axis(rows, largest[..., None], axis=-1)[..., 0] / np.float32(-8)
    # C++ starts from a maximum of +0 and replaces it only by something larger: an all-zero block keeps +0.
    d = np.where(d == 0, np.float32(-0.0), d)
    blocks = np.empty(rows.shape[:-1], dtype=Q40_BLOCK)
    blocks["d"] = f32_to_f16(d)
    with np.errstate(invalid="ignore", over="ignore"):
        codes = rows.astype(np.float64) * _reciprocal(d)[..., None] + 8.5
        codes = np.minimum(np.nan_to_num(codes.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0), 15)
    nibbles = codes.astype(np.int32).astype(np.uint8)
    blocks["qs"] = nibbles[..., :16] | (nibbles[..., 16:] << 4)
    return blocks


def dequantize_q80(blocks: npt.NDArray[np.void]) -> npt.NDArray[np.float32]:
    """Decode (..., n) Q80 blocks to (..., 32 n) float32 (C++ ``dequantizeQ80toF32``)."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = blocks["qs"] * blocks["d"].astype(_F32)[..., None]
    return values.reshape(*blocks.shape[:-1], -1)


def dequantize_q40(blocks: npt.NDArray[np.void]) -> npt.NDArray[np.float32]:
    """Decode (..., n) Q40 blocks to (..., 32 n) float32 (C++ ``dequantizeQ40toF32``)."""
    codes = np.empty((*blocks.shape, BLOCK_SIZE), dtype=np.int8)
    np.bitwise_and(blocks["qs"], 0x0F, out=codes[..., :16], casting="unsafe")
    np.right_shift(blocks["qs"], 4, out=codes[..., 16:], casting="unsafe")
    codes -= 8
    with np.errstate(invalid="ignore", over="ignore"):
        values = codes * blocks["d"].astype(_F32)[..., None]
    return values.reshape(*blocks.shape[:-1], -1)
