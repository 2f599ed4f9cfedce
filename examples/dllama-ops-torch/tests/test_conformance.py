"""Every kernel on every device here passes the conformance kit; attention with a copied cache does, too."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from dllama_ops import Kernel, KernelFactory, KernelKey, OpContext
from dllama_ops.testing import (
    SEGMENT_KINDS,
    bad_data_cases,
    check_in_segment,
    check_kernel,
    check_refusal,
    golden_cases,
    random_case,
    random_segment,
)
from dllama_ops_torch import devices, kernels_on
from dllama_ops_torch.attention import TorchMultiHeadAtt
from dllama_proto.enums import OpCode, OpQuantType

ATTENTION = KernelKey(OpCode.MULTIHEAD_ATT, OpQuantType.F32_F32_F32)


def copied_attention(context: OpContext) -> Kernel:
    """What runs on a CUDA device, but for the device."""
    return TorchMultiHeadAtt(context, torch.device("cpu"), copied=True)


def kernels() -> list[Any]:
    offered = [
        pytest.param(KernelKey(code, quant), factory, id=f"{device.type}-{code.name}-{quant.name}".lower())
        for device in devices()
        for code, quant, factory in kernels_on(device)
    ]
    return [*offered, pytest.param(ATTENTION, copied_attention, id="copied-multihead_att")]


every_kernel = pytest.mark.parametrize(("key", "factory"), kernels())


@every_kernel
def test_agrees_with_what_was_recorded(key: KernelKey, factory: KernelFactory) -> None:
    for case in golden_cases(key):
        for n_threads in (1, 2):
            assert check_kernel(factory, case, n_threads=n_threads) == [], case.name


@every_kernel
def test_agrees_with_the_reference(key: KernelKey, factory: KernelFactory) -> None:
    for seed in range(40):
        case = random_case(key, seed)
        assert check_kernel(factory, case, n_threads=1 + seed % 2) == [], case.name


@every_kernel
def test_refuses_indexes_out_of_range(key: KernelKey, factory: KernelFactory) -> None:
    for seed in range(4):
        for case in bad_data_cases(key, seed):
            assert check_refusal(factory, case) == [], case.name


@every_kernel
def test_agrees_batch_after_batch_in_segments(key: KernelKey, factory: KernelFactory) -> None:
    cases = [
        random_segment(kind, seed, quantised=quantised)
        for kind in SEGMENT_KINDS
        for quantised in (True, False)
        for seed in range(3)
    ]
    results = [check_in_segment(key, factory, case) for case in cases]
    assert [failures for failures in results if failures] == []
    assert any(failures == [] for failures in results), "no segment has such an op"
