"""Float types against what the C++ program recorded, bit for bit, and against their error bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dllama_proto.enums import FloatType
from dllama_proto.floats import (
    BLOCK_SIZE,
    Q40_BLOCK,
    Q80_BLOCK,
    bytes_to_values,
    dequantize_q40,
    dequantize_q80,
    f16_to_f32,
    f32_to_f16,
    is_whole_blocks,
    n_bytes,
    quantize_q40,
    quantize_q80,
    storage_dtype,
)

F32 = npt.NDArray[np.float32]
Encode = Callable[[F32], npt.NDArray[np.void]]
Decode = Callable[[npt.NDArray[np.void]], F32]

Q80 = pytest.param(quantize_q80, dequantize_q80, Q80_BLOCK, "q80", id="q80")
Q40 = pytest.param(quantize_q40, dequantize_q40, Q40_BLOCK, "q40", id="q40")
both = pytest.mark.parametrize(("encode", "decode", "block", "name"), [Q80, Q40])


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, npt.NDArray[Any]]:
    """Return what the C++ quantisers made of chosen blocks."""
    with np.load(Path(__file__).parent.parent / "data" / "golden" / "quants.npz") as arrays:
        return dict(arrays)


def _wrong(came: npt.NDArray[Any], expected: npt.NDArray[Any], labels: npt.NDArray[Any]) -> list[str]:
    """Return the labels of rows whose bits differ; NaN of any payload are the same."""
    same = came == expected
    if came.dtype == np.float32:
        same = (came.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(came) & np.isnan(expected))
    return [str(label) for label in labels[~same.all(axis=-1)]]


@both
def test_encodes_as_recorded(
    recorded: Mapping[str, Any], encode: Encode, decode: Decode, block: np.dtype[Any], name: str
) -> None:
    came = encode(recorded["f32"]).view(np.uint8).reshape(-1, block.itemsize)
    assert len(came) == 69
    assert _wrong(came, recorded[name], recorded["labels"]) == []


@both
@pytest.mark.parametrize("source", ["", "blocks_"])
def test_decodes_as_recorded(
    recorded: Mapping[str, Any],
    encode: Encode,
    decode: Decode,
    block: np.dtype[Any],
    name: str,
    source: str,
) -> None:
    blocks = recorded[source + name]
    came = decode(blocks.view(block).reshape(-1, 1))
    assert came.dtype == np.float32
    assert _wrong(came, recorded[f"{source}{name}_to_f32"], np.arange(len(blocks))) == []


finite = st.floats(-1e4, 1e4, width=32)
blocks_of_values = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.just(64)), elements=finite)


def _largest(values: F32) -> npt.NDArray[np.float64]:
    magnitudes = np.abs(values.astype(np.float64)).reshape(len(values), -1, BLOCK_SIZE)
    return np.asarray(magnitudes.max(axis=-1))


def _error(values: F32, decoded: F32) -> npt.NDArray[np.float64]:
    difference = values.astype(np.float64) - decoded.astype(np.float64)
    return np.asarray(np.abs(difference).reshape(len(values), -1, BLOCK_SIZE).max(axis=-1))


#: A half-precision scale is off by at most one part in 2^11, or by half its smallest step.
_HALF_ROUNDING = 2.0**-11
_HALF_STEP = 2.0**-25


@given(values=blocks_of_values)
def test_q80_is_off_by_half_a_step(values: F32) -> None:
    largest = _largest(values)
    bound = largest / 127 * (0.5 + 1e-5) + largest * _HALF_ROUNDING + 127 * _HALF_STEP
    assert np.all(_error(values, dequantize_q80(quantize_q80(values))) <= bound)


@given(values=blocks_of_values)
def test_q40_is_off_by_one_step(values: F32) -> None:
    """Half a step, but a whole one where the value opposite to the largest would need the code 16."""
    largest = _largest(values)
    bound = largest / 8 * (1 + 1e-5) + largest * _HALF_ROUNDING + 8 * _HALF_STEP
    assert np.all(_error(values, dequantize_q40(quantize_q40(values))) <= bound)


@both
@given(values=hnp.arrays(np.float32, (2, 32), elements=st.floats(width=32)))
def test_any_values_at_all_make_blocks(
    values: F32, encode: Encode, decode: Decode, block: np.dtype[Any], name: str
) -> None:
    blocks = encode(values)
    assert blocks.shape == (2, 1)
    assert decode(blocks).shape == (2, 32)


@both
@given(data=st.binary(min_size=34 * 18, max_size=34 * 18))
def test_any_bytes_at_all_decode(
    data: bytes, encode: Encode, decode: Decode, block: np.dtype[Any], name: str
) -> None:
    blocks = np.frombuffer(data, block)
    values = decode(blocks)
    assert values.shape == (len(blocks) * 32,)
    wide = blocks["d"].astype(np.float64)
    assert np.array_equal(np.isfinite(values).reshape(-1, 32).all(axis=-1), np.isfinite(wide))


@both
@given(values=blocks_of_values)
def test_blocks_are_independent_of_each_other(
    values: F32, encode: Encode, decode: Decode, block: np.dtype[Any], name: str
) -> None:
    whole = encode(values)
    assert whole.shape == (len(values), 2)
    for row in range(len(values)):
        for column in range(2):
            alone = encode(values[row, column * 32 : column * 32 + 32])
            assert alone.tobytes() == whole[row, column].tobytes()
    strided = np.concatenate([values, values], axis=1)[:, :64]
    assert encode(strided).tobytes() == whole.tobytes()


@given(values=blocks_of_values)
def test_q80_of_decoded_q80_has_the_same_codes(values: F32) -> None:
    blocks = quantize_q80(values)
    again = quantize_q80(dequantize_q80(blocks))
    normal = blocks["d"].astype(np.float64) > 1e-4
    assert np.array_equal(blocks["qs"][normal], again["qs"][normal])


def test_layout_of_blocks() -> None:
    values = np.arange(-16, 16, dtype=np.float32)
    q80, q40 = quantize_q80(values)[0], quantize_q40(values)[0]
    assert (Q80_BLOCK.itemsize, Q40_BLOCK.itemsize) == (34, 18)
    assert q80["d"] == np.float16(16 / 127)
    assert q80["qs"].tolist() == [round(value * 127 / 16) for value in range(-16, 16)]
    # The scale is -16 / -8 = 2, codes are x / 2 + 8.5 cut off, low nibbles the first sixteen.
    assert q40["d"] == 2
    codes = [min(15, int(value / 2 + 8.5)) for value in range(-16, 16)]
    assert q40["qs"].tolist() == [low | high << 4 for low, high in zip(codes[:16], codes[16:], strict=True)]


@pytest.mark.parametrize(
    ("float_type", "values", "size"),
    [(FloatType.F32, 3, 12), (FloatType.F16, 3, 6), (FloatType.Q40, 64, 36), (FloatType.Q80, 64, 68)],
)
def test_sizes(float_type: FloatType, values: int, size: int) -> None:
    assert n_bytes(float_type, values) == size
    assert n_bytes(float_type, 0) == 0
    assert bytes_to_values(float_type, bytes(size)).shape == (values,)
    assert size % storage_dtype(float_type).itemsize == 0
    assert n_bytes(float_type, values * 2**40) == size * 2**40


@pytest.mark.parametrize("float_type", [FloatType.Q40, FloatType.Q80])
@pytest.mark.parametrize("values", [1, 31, 33, -32])
def test_broken_blocks_have_no_size(float_type: FloatType, values: int) -> None:
    with pytest.raises(ValueError, match=f"expected whole {float_type.name} blocks .* got {values}"):
        n_bytes(float_type, values)
    assert is_whole_blocks(float_type, values) == (values == -32)


def test_a_type_without_storage_is_refused() -> None:
    for call in (lambda: n_bytes(FloatType.UNK, 1), lambda: storage_dtype(FloatType.UNK)):
        with pytest.raises(ValueError, match="has no storage"):
            call()


@both
def test_rows_of_broken_blocks_are_refused(
    encode: Encode, decode: Decode, block: np.dtype[Any], name: str
) -> None:
    with pytest.raises(
        ValueError, match=f"expected rows of whole {name.upper()} blocks of 32 values, got 33"
    ):
        encode(np.zeros((2, 33), np.float32))
    with pytest.raises(ValueError, match="buffer size must be a multiple"):
        bytes_to_values(FloatType[name.upper()], bytes(block.itemsize + 1))


@given(values=hnp.arrays(np.float32, 40, elements=st.floats(width=32)))
def test_half_precision_rounds_to_even_and_widens_exactly(values: F32) -> None:
    halves = f32_to_f16(values)
    with np.errstate(over="ignore"):
        assert np.array_equal(halves, values.astype(np.float16), equal_nan=True)
    assert np.array_equal(f32_to_f16(f16_to_f32(halves)), halves, equal_nan=True)
    assert np.array_equal(
        bytes_to_values(FloatType.F16, halves.tobytes()), f16_to_f32(halves), equal_nan=True
    )


def test_half_precision_ties() -> None:
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 65520.0, 2**-25, 2**-25 * 1.5], np.float32)
    expected = [1.0, 1 + 2**-9, 65504.0, np.inf, 0.0, 2**-24]
    assert f16_to_f32(f32_to_f16(values)).tolist() == expected
