"""Weights: decoded exactly, in chunks as in one piece, kept in as many bytes as on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from dllama_ops import KernelKey
from dllama_ops.testing import check_kernel, random_case
from dllama_ops_torch import matmul
from dllama_ops_torch.memory import decode_q40, decode_q80
from dllama_proto.enums import OpCode, OpQuantType
from dllama_proto.floats import Q40_BLOCK, Q80_BLOCK, dequantize_q40, dequantize_q80

Q40 = KernelKey(OpCode.MATMUL, OpQuantType.Q80_Q40_F32)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("block", "decode", "reference"),
    [(Q40_BLOCK, decode_q40, dequantize_q40), (Q80_BLOCK, decode_q80, dequantize_q80)],
    ids=["q40", "q80"],
)
def test_any_blocks_are_decoded_to_the_same_values(
    block: np.dtype[Any], decode: Callable[..., torch.Tensor], reference: Callable[..., Any]
) -> None:
    data = np.random.default_rng(3).integers(0, 256, (500, 4 * block.itemsize), np.uint8)
    came = decode(torch.unflatten(torch.from_numpy(data), -1, (-1, block.itemsize))).numpy()
    expected = reference(data.view(block))
    same = (came == expected) | (np.isnan(came) & np.isnan(expected))
    assert came.shape == (500, 128)
    assert same.all()


def test_chunks_of_rows_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matmul._CHUNK, "cpu", 1)
    cases = [random_case(Q40, seed) for seed in range(10)]
    assert any(case.weight is not None and case.weight.x > 16 for case in cases)
    for case in cases:
        assert check_kernel(lambda context: matmul.TorchMatmul(context, CPU), case) == [], case.name


def test_a_weight_takes_the_bytes_of_the_wire() -> None:
    case = random_case(Q40, 1)
    kernel = matmul.TorchMatmul(case.bind().context, CPU)
    assert kernel._bytes.numel() == len(case.weight_bytes)
    view = kernel.weight_view(0, len(case.weight_bytes))
    assert view is not None
    view[:] = case.weight_bytes
    assert kernel._weight.numpy().tobytes() == case.weight_bytes
