"""Rotary position embedding: ROPE, and the cache of cosines and sines that all layers share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import pi

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import OpContext
from dllama_ops.params import RopeParams
from dllama_ops.reference._kernel import F32Array, ReferenceKernel, params_of
from dllama_proto.enums import RopeType

__all__ = [
    "Rope",
    "cache_pieces",
    "fill_cache",
    "fill_cache_bytes",
    "frequencies",
    "prepare_cache",
    "rotate_falcon",
    "rotate_llama",
]

#: Angles computed at a time: keeps the temporary memory within a megabyte, whatever the cache's size.
_CHUNK = 1 << 15


def frequencies(params: RopeParams, start: int = 0, stop: int | None = None) -> F32Array:
    """Return the angle that each pair of a row turns per position, (width / 2,), in float32 steps as C++.

    LLAMA, LLAMA3_1: θ^-(i mod head_dim)/head_dim for i = kv_dim_start, +2, … q_dim_end (C++
    ``fullfillRopeLlamaCache``). FALCON: θ^-2j/head_dim for j < head_dim / 2 (``fullfillRopeFalconCache``).
    With ``start`` and ``stop`` only those of these pairs.
    """
    head_dim = np.float32(params.head_dim)
    with np.errstate(all="ignore"):
        if params.type is RopeType.FALCON:
            pairs = range(params.head_dim // 2)[start:stop]
            exponents = np.float32(2) * (np.arange(pairs.start, pairs.stop, dtype=np.float32) / head_dim)
            return np.float32(1) / _powers(params.rope_theta, exponents)
        columns = range(params.kv_dim_start, params.q_dim_end, 2)[start:stop]
        i = np.arange(columns.start, columns.stop, 2) % params.head_dim
        plain = np.float32(1) / _powers(params.rope_theta, i.astype(np.float32) / head_dim)
        return plain if params.scaling_factor == 1 else _scale_by_wavelength(plain, params)


def _powers(base: float, exponents: F32Array) -> F32Array:
    """Raise to powers with one rounding, as the C library does; NumPy's float32 loops round less well."""
    return (np.float64(np.float32(base)) ** exponents.astype(np.float64)).astype(np.float32)


def _scale_by_wavelength(freqs: F32Array, params: RopeParams) -> F32Array:
    """Slow down low frequencies: Llama 3.1's stretch of the context (C++ ``scaleFrequencyLlama3``)."""
    context_len = np.float32(params.orig_max_seq_len)
    low, high = np.float32(params.low_freq_factor), np.float32(params.high_freq_factor)
    factor = np.float32(params.scaling_factor)
    wavelengths = (2 * pi / freqs.astype(np.float64)).astype(np.float32)
    smooth = (context_len / wavelengths - low) / (high - low)
    # The last product and sum are one fused operation there, with one rounding; float64 holds the product.
    slowed = (np.float32(1) - smooth) * freqs / factor
    between = (smooth.astype(np.float64) * freqs + slowed).astype(np.float32)
    scaled = np.where(wavelengths > context_len / low, freqs / factor, between)
    return np.where(wavelengths < context_len / high, freqs, scaled)


def prepare_cache(context: OpContext) -> None:
    """Have the cache of an op filled: with the others of its node, where it has one, else now.

    As in C++, every ROPE op of every layer fills its cache when it is made, so that those of one cache leave it as
    the last of them wants it. Only that one's work is done.
    """
    params = params_of(context, RopeParams)
    if context.scope is None:
        fill_cache(params)
    else:
        context.scope.once(("rope cache", params.cache.data.ctypes.data), partial(cache_pieces, params))


def fill_cache(params: RopeParams) -> None:
    """Write cos and sin of every position times every frequency into the cache (C++ ``fullfillRopeCache``).

    A cache whose second and last row are right was filled with these parameters: position 1 is the frequencies, so
    it is left as it is.
    """
    if not _is_filled(params):
        for _ in cache_pieces(params):
            pass


def cache_pieces(params: RopeParams) -> Iterator[None]:
    """Fill the cache whatever it holds, a piece of bounded size at a time."""
    cache: F32Array = params.cache.data[0]
    for start, stop in _blocks(params):
        freqs = frequencies(params, start, stop)
        cos, sin = _pairs(cache, params.type, start, stop)
        n_rows = max(1, _CHUNK // len(freqs))
        for first in range(0, params.seq_len, n_rows):
            rows = slice(first, min(first + n_rows, params.seq_len))
            _write_angles((cos[rows], sin[rows]), np.arange(rows.start, rows.stop), freqs)
            yield


def fill_cache_bytes(params: RopeParams) -> int:
    """Return the bytes of arrays that :func:`fill_cache` takes at most, whatever the cache holds already.

    Those of a piece: frequencies and what they are worked out from; two rows, as they are and as they should be;
    for the angles of a piece, or of the two rows, float32, float64 and a cosine or sine.
    """
    n_freqs = min(params.cache.x // 2 + 1, _CHUNK)
    return 128 * n_freqs + 24 * max(2 * n_freqs, _CHUNK)


def _is_filled(params: RopeParams) -> bool:
    """Tell whether the second and the last row are what these parameters make of them."""
    cache: F32Array = params.cache.data[0]
    probes = np.unique([min(1, params.seq_len - 1), params.seq_len - 1])
    for start, stop in _blocks(params):
        there = _pairs(cache, params.type, start, stop)
        expected = np.empty((2, len(probes), stop - start), np.float32)
        _write_angles((expected[0], expected[1]), probes, frequencies(params, start, stop))
        if not all(np.array_equal(a[probes], b) for a, b in zip(there, expected, strict=True)):
            return False
    return True


def _blocks(params: RopeParams) -> Iterator[tuple[int, int]]:
    """Yield first and last, not included, of the pairs of a row that are worked on together."""
    n_pairs = params.cache.x // 2
    return ((start, min(start + _CHUNK, n_pairs)) for start in range(0, n_pairs, _CHUNK))


def _pairs(rows: F32Array, rope_type: RopeType, start: int, stop: int) -> tuple[F32Array, F32Array]:
    """Return the cosines and the sines of some pairs, as views of the cache's rows."""
    if rope_type is RopeType.FALCON:
        half = rows.shape[1] // 2
        return rows[:, start:stop], rows[:, half + start : half + stop]
    return rows[:, 2 * start : 2 * stop : 2], rows[:, 2 * start + 1 : 2 * stop : 2]


def _write_angles(to: tuple[F32Array, F32Array], positions: npt.NDArray[np.intp], freqs: F32Array) -> None:
    # The angle is rounded to float32 as in C++; its cosine and sine are then rounded once, as in C's library.
    with np.errstate(all="ignore"):
        angles = (positions.astype(np.float32)[:, None] * freqs).astype(np.float64)
        np.copyto(to[0], np.cos(angles), casting="same_kind")
        np.copyto(to[1], np.sin(angles), casting="same_kind")


def rotate_llama(x: F32Array, cache: F32Array) -> None:
    """Rotate neighbours, in place: x (b, n), cache (b, n) of cos, sin, cos, sin… C++ ``ropeLlama_F32``."""
    # (x0 + i·x1)·(cos + i·sin) is the rotation: pairs of float32 are complex numbers in memory.
    pairs = x.view(np.complex64)
    pairs *= cache.view(np.complex64)


def rotate_falcon(x: F32Array, cache: F32Array) -> None:
    """Rotate pairs half a head apart, in place: x (b, heads, 2, half), cache (b, 2, half) of cos and sin.

    C++ ``ropeFalcon_F32``.
    """
    cos, sin = cache[:, None, 0], cache[:, None, 1]
    first, second = x[:, :, 0], x[:, :, 1]
    rotated = first * cos - second * sin
    second[...] = first * sin + second * cos
    first[...] = rotated


class Rope(ReferenceKernel):
    """ROPE F32_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._params = params = params_of(context, RopeParams)
        prepare_cache(context)
        width = params.q_dim0 if params.is_q else params.kv_dim0
        shift = params.q_shift if params.is_q else 0
        self._falcon = params.type is RopeType.FALCON
        cache = params.cache.data[0]
        self._cache = cache if self._falcon else cache[:, shift : shift + width]

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count what filling the cache takes, or rotating: rows of the cache, and halves of rows."""
        params = params_of(context, RopeParams)
        dim0 = params.q_dim0 if params.is_q else params.kv_dim0
        width = params.head_dim if params.type is RopeType.FALCON else dim0
        return max(fill_cache_bytes(params), context.n_batches * (4 * width + 10 * dim0))

    def compute(self, batch_size: int) -> None:
        """Rotate the rows by their positions. Raises KernelDataError."""
        params = self._params
        positions = self.indexes("positions", params.positions, batch_size, params.seq_len)[:, 0]
        x = self.context.output.data[0, :batch_size]
        cache = self._cache[positions]
        if self._falcon:
            rotate_falcon(
                x.reshape(batch_size, -1, 2, params.head_dim // 2), cache.reshape(batch_size, 2, -1)
            )
        else:
            rotate_llama(x, cache)
