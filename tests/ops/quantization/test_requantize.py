"""Q40 blocks as model converters make them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from dllama_ops import native
from dllama_ops.quantization.requantize import quantize_by_numpy, quantize_like_converter
from dllama_proto.floats import dequantize_q40


def _converted(group: np.ndarray) -> bytes:
    """One block, by what the converter's source says, value by value."""
    high, low = group.max(), group.min()
    d = np.float32(low if -low > high else high) / np.float32(-8)
    inverse = np.float32(1) / d if d != 0 else np.float32(0)
    codes = [int(min(15, max(0, value * inverse + np.float32(8.5)))) for value in group]
    packed = [first | second << 4 for first, second in zip(codes[:16], codes[16:], strict=True)]
    return struct.pack("<e16B", np.float16(d), *packed)


@given(
    st_numpy.arrays(
        np.float32,
        st.integers(1, 4).map(lambda n: 32 * n),
        elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
    )
)
def test_blocks_are_the_converter_s(values: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        expected = b"".join(map(_converted, values.reshape(-1, 32)))
        assert quantize_like_converter(values).tobytes() == expected


def test_native_code_and_numpy_agree_to_the_bit() -> None:
    if native.unavailable:
        pytest.skip(native.unavailable)
    rng = np.random.default_rng(3)
    scales = 10.0 ** rng.uniform(-6, 6, (5000, 1))
    values = (rng.standard_normal((5000, 32)) * scales).astype(np.float32)
    values[0] = 0
    expected = quantize_by_numpy(values.reshape(-1)).tobytes()
    blocks = np.empty(len(expected), np.uint8)
    for kernels in native._core.kernel_sets():
        native._core.quantize_q40(kernels, values, blocks)
        assert blocks.tobytes() == expected, kernels


def test_values_of_few_bits_are_rounded_as_the_converter_does() -> None:
    """Of values with few bits many products end at a border, where a fused multiply-add rounds otherwise."""
    if native.unavailable:
        pytest.skip(native.unavailable)
    values = np.random.default_rng(0).standard_normal(1 << 21).astype(np.float16).astype(np.float32)
    expected = quantize_by_numpy(values)
    blocks = np.empty(expected.nbytes, np.uint8)
    for kernels in native._core.kernel_sets():
        native._core.quantize_q40(kernels, values, blocks)
        assert blocks.tobytes() == expected.tobytes(), kernels


def test_what_was_q40_stays_so_to_half_a_step() -> None:
    values = np.random.default_rng(1).standard_normal(32 * 1000).astype(np.float32)
    once = dequantize_q40(quantize_like_converter(values)).reshape(-1, 32)
    steps = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True) / 8
    # The value at the other end may be cut by up to a whole step.
    assert (np.abs(once - values.reshape(-1, 32)) <= 1.01 * steps).all()
    assert np.median(np.abs(once - values.reshape(-1, 32)) / steps) < 0.3


def test_close_to_llama_cpp_s() -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(2).standard_normal(32 * 4096).astype(np.float32)
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
    assert quantize_like_converter(values).tobytes() == theirs.tobytes()
