"""Stored blocks as numbers, against the ``gguf`` package of llama.cpp, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from dllama_ops import native
from dllama_ops.native.blocks import can_decode_natively
from dllama_ops.quantization.decode import can_decode, decode
from dllama_ops.quantization.ggml_types import GgmlType
from dllama_ops.quantization.reference import DECODERS

gguf = pytest.importorskip("gguf")

_TYPES = sorted(DECODERS)


def _random_blocks(ggml_type: GgmlType, n: int) -> np.ndarray:
    return np.random.default_rng(ggml_type).integers(0, 256, n * ggml_type.block_bytes, dtype=np.uint8)


def _same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    bits = ours.view(np.uint32) == theirs.astype(np.float32).view(np.uint32)
    return bool((bits | (np.isnan(ours) & np.isnan(theirs))).all())


@pytest.mark.parametrize("ggml_type", _TYPES, ids=lambda found: found.name)
def test_any_blocks_decode_as_in_llama_cpp(ggml_type: GgmlType) -> None:
    blocks = _random_blocks(ggml_type, 3000)
    out = np.empty(3000 * ggml_type.block_values, np.float32)
    decode(ggml_type, blocks, out)
    stored = {"F32": "<f4", "F16": "<f2"}.get(ggml_type.name, "u1")
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(blocks.view(stored), gguf.GGMLQuantizationType[ggml_type.name])
    assert _same(out, theirs.reshape(-1))


@pytest.mark.parametrize("ggml_type", list(GgmlType), ids=lambda found: found.name)
def test_blocks_have_the_sizes_of_llama_cpp(ggml_type: GgmlType) -> None:
    theirs = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[ggml_type.name]]
    assert (ggml_type.block_values, ggml_type.block_bytes) == theirs
    assert int(gguf.GGMLQuantizationType[ggml_type.name]) == ggml_type


@pytest.mark.parametrize("ggml_type", _TYPES, ids=lambda found: found.name)
def test_native_code_and_numpy_agree_to_the_bit(ggml_type: GgmlType) -> None:
    if not can_decode_natively(ggml_type):
        pytest.skip("there is no native code for it here")
    blocks = _random_blocks(ggml_type, 2000)
    out = np.empty(2000 * ggml_type.block_values, np.float32)
    with np.errstate(all="ignore"):
        expected = DECODERS[ggml_type](blocks.reshape(2000, -1)).reshape(-1)
    for kernels in native._core.kernel_sets():
        native._core.decode_blocks(kernels, ggml_type, blocks, out)
        assert _same(out, expected), kernels


def test_sizes_that_do_not_fit_are_refused() -> None:
    for n_bytes, n_values in ((17, 32), (18, 31), (36, 32), (0, 32)):
        with pytest.raises(ValueError, match="Q4_0 blocks"):
            decode(GgmlType.Q4_0, np.zeros(n_bytes, np.uint8), np.empty(n_values, np.float32))
    decode(GgmlType.Q4_0, np.zeros(0, np.uint8), np.empty(0, np.float32))


def test_types_of_lattices_are_refused_by_name() -> None:
    assert not can_decode(GgmlType.IQ2_XS)
    with pytest.raises(ValueError, match="IQ2_XS"):
        decode(GgmlType.IQ2_XS, np.zeros(74, np.uint8), np.empty(256, np.float32))
