"""The next token from logits: same seed, same tokens as C++ ``Sampler`` (``tokenizer.cpp``).

Everything is float32 in the order of the C++ program as it runs on x86-64 with AVX2: the softmax
(``softmax_F32`` of ``nn-cpu-ops.cpp``) has its polynomial for e^x and adds in eight lanes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Sampler", "XorShift", "softmax"]

_Floats = npt.NDArray[np.float32]

_F32 = np.float32
_LANES = 8

# Coefficients of 2^f and log2(e), as float32.
_POLYNOMIAL = tuple(
    _F32(c)
    for c in (0.009618129107628477, 0.05550410866482158, 0.2402265069591007, 0.6931471805599453, 1.0)
)
_LOG2_E = _F32(1.4426950408889634)
_EXP_RANGE = _F32(88)


class XorShift:
    """The xorshift* generator of Marsaglia and Vigna (C++ ``randomU32``, ``randomF32``)."""

    def __init__(self, seed: int) -> None:
        self._state = seed % 2**64

    def next_u32(self) -> int:
        """Return 32 random bits."""
        state = self._state
        state ^= state >> 12
        state ^= state << 25 & 0xFFFF_FFFF_FFFF_FFFF
        state ^= state >> 27
        self._state = state
        return (state * 0x2545_F491_4F6C_DD1D & 0xFFFF_FFFF_FFFF_FFFF) >> 32

    def next_f32(self) -> np.float32:
        """Return a number in [0, 1), a multiple of 2^-24."""
        return _F32((self.next_u32() >> 8) / 16777216)


class Sampler:
    """Picks tokens. ``temperature`` 0 takes the most likely one; ``topp`` in (0, 1) leaves out the unlikely.

    Models may have more rows than the tokenizer has tokens (``vocab_size``), which fill the vocabulary up to a
    round number: such a row is never picked.
    """

    def __init__(self, temperature: float, topp: float, seed: int, vocab_size: int | None = None) -> None:
        self.temperature = _F32(temperature)
        self.topp = _F32(topp)
        self._random = XorShift(seed)
        self._vocab_size = vocab_size

    def sample(self, logits: _Floats) -> int:
        """Return a token for logits, one for each row of the model, which are left as they are.

        Raises ValueError where logits are not numbers.
        """
        logits = logits[: self._vocab_size]
        if not np.isfinite(logits.max()):
            raise ValueError(f"the largest of {len(logits)} logits is {logits.max()}, not a number")
        if self.temperature == 0:
            return int(np.argmax(logits))
        probabilities = softmax(logits / self.temperature)
        coin = self._random.next_f32()
        if 0 < self.topp < 1:
            return _sample_topp(probabilities, self.topp, coin)
        return _pick(np.add.accumulate(probabilities), coin)


def softmax(logits: _Floats) -> _Floats:
    """Return the probabilities of logits [n], bit for bit those of the C++ program.

    Where n is no multiple of 8, the last ones use the C library's e^x, which may differ from ours in the
    last bit.
    """
    n_lanes = len(logits) // _LANES * _LANES
    shifted = logits - logits.max()
    powers = np.empty_like(shifted)
    powers[:n_lanes] = _exp(shifted[:n_lanes])
    # Sums in order, which accumulate keeps to and sum does not.
    lanes = np.add.accumulate(powers[:n_lanes].reshape(-1, _LANES), axis=0)
    total = _F32(0)
    if n_lanes:
        last = lanes[-1]
        half = last[4:] + last[:4]
        pair = half[:2] + half[2:]
        total = pair[0] + pair[1]
    for i in range(n_lanes, len(logits)):
        powers[i] = np.exp(np.float64(shifted[i]))
        total += powers[i]
    if total == 0:
        total = _F32(0.000001)
    result: _Floats = powers * (_F32(1) / total)
    return result


def _exp(x: _Floats) -> _Floats:
    """Return e^x (C++ ``expf_avx2``): 2^n times a polynomial in the remainder, by fused multiply-adds.

    float64 holds each product exactly, so only the sum is rounded, first to float64, then to float32.
    """
    y = np.clip(x, -_EXP_RANGE, _EXP_RANGE) * _LOG2_E
    n = np.rint(y)
    f = (y - n).astype(np.float64)
    p = np.full_like(x, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p = (p * f + np.float64(coefficient)).astype(_F32)
    # 2^n from its exponent bits: 2^-127, which has none, is 0 there.
    two_n = ((n.astype(np.int32) + 127) << 23).view(_F32)
    result: _Floats = p * two_n
    return result


def _sample_topp(probabilities: _Floats, topp: np.float32, coin: np.float32) -> int:
    """Pick among the most likely tokens that together exceed ``topp`` (C++ ``sample_topp``)."""
    cutoff = (_F32(1) - topp) / _F32(len(probabilities) - 1) if len(probabilities) > 1 else _F32(0)
    candidates = np.flatnonzero(probabilities >= cutoff)
    if not len(candidates):
        return int(np.argmax(probabilities))
    # The C library's qsort is a merge sort: equals stay in order.
    order = candidates[np.argsort(-probabilities[candidates], kind="stable")]
    sums = np.add.accumulate(probabilities[order])
    last = int(np.argmax(sums > topp)) if sums[-1] > topp else len(order) - 1
    return int(order[_pick(sums[: last + 1], coin * sums[last])])


def _pick(sums: _Floats, at: np.float32) -> int:
    """Return the first index whose sum is above ``at``; the last where rounding left none."""
    return min(int(np.searchsorted(sums, at, side="right")), len(sums) - 1)
