"""Every op that the protocol names has params, a contract, a reference kernel, a vector and a tolerance."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import pytest

import dllama_ops
from dllama_ops import KernelKey, build_kernel_table, check_context, make_plugin_manager, native
from dllama_ops.testing import golden_case, golden_names, random_case
from dllama_proto.enums import OpCode, OpQuantType

#: What the C++ CPU build provides (``getCpuOpForward``): what a worker must compute.
CPP = """
MERGE_ADD F32_F32_F32 Q80_Q80_F32
MERGE_SUM F32_F32_F32
EMBEDDING F32_F32_F32 F32_F32_Q80
INV_RMS F32_F32_F32
RMS_NORM F32_F32_F32 Q80_F32_F32
MATMUL F32_F32_F32 Q80_Q40_F32
ROPE F32_F32_F32
MULTIHEAD_ATT F32_F32_F32
GELU F32_F32_F32
SILU F32_F32_F32
MUL F32_F32_F32
SCALE F32_F32_F32
CAST F32_F32_F32 F32_F32_Q80 Q80_Q80_Q80 Q80_Q80_F32
REPEAT_Z F32_F32_Q80
SHIFT F32_F32_F32
SOFTMAX F32_F32_F32
MOE_GATE F32_F32_F32
"""
PAIRS = [
    KernelKey(OpCode[code], OpQuantType[quant])
    for code, *quants in map(str.split, CPP.strip().splitlines())
    for quant in quants
]
#: What C++ lacks, so that nothing could be recorded: MoE with f32, and f32 activations with q40 weights.
EXTRA = [
    KernelKey(OpCode.REPEAT_Z, OpQuantType.F32_F32_F32),
    KernelKey(OpCode.MATMUL, OpQuantType.F32_Q40_F32),
    KernelKey(OpCode.MATMUL, OpQuantType.Q80_F32_F32),
]


def test_the_list_names_every_op() -> None:
    assert len(PAIRS) == 24
    assert {key.code for key in PAIRS} == set(OpCode)


@pytest.mark.parametrize("key", PAIRS, ids=str)
def test_every_pair_of_the_program_has_a_reference_kernel_and_a_vector(key: KernelKey) -> None:
    table = build_kernel_table(make_plugin_manager(), prefer="numpy")
    assert table.get(key).plugin == "numpy"
    assert golden_names(key)


@pytest.mark.parametrize("key", EXTRA, ids=str)
def test_what_the_program_lacks_has_a_reference_kernel(key: KernelKey) -> None:
    table = build_kernel_table(make_plugin_manager(), prefer="numpy")
    assert table.get(key).plugin == "numpy"
    assert not golden_names(key)


def test_the_reference_offers_nothing_else() -> None:
    table = build_kernel_table(make_plugin_manager(), prefer="numpy")
    offered = {entry.key for entry in table.entries if entry.plugin == "numpy"}
    assert offered == set(PAIRS + EXTRA)


def test_every_vector_is_of_a_known_pair_and_keeps_the_contract() -> None:
    for name in golden_names():
        case = golden_case(name)
        assert case.key in PAIRS
        assert check_context(case.bind().context) == [], name


@pytest.mark.parametrize("key", PAIRS + EXTRA, ids=str)
def test_random_cases_keep_the_contract_and_differ(key: KernelKey) -> None:
    cases = [random_case(key, seed) for seed in range(8)]
    assert [check_context(case.bind().context) for case in cases] == [[]] * 8
    assert len({tuple(case.expected.values()) for case in cases}) == 8


def test_public_names_are_sorted_and_exist() -> None:
    modules = [dllama_ops] + [
        import_module(module.name)
        for module in walk_packages(dllama_ops.__path__, "dllama_ops.")
        if not module.name.endswith("__main__")
        and (native.unavailable is None or not module.name.startswith("dllama_ops.native."))
    ]
    for module in modules:
        assert list(module.__all__) == sorted(module.__all__), module.__name__
        assert all(hasattr(module, name) for name in module.__all__), module.__name__


def test_other_names_are_no_attributes_of_the_package() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = dllama_ops.nothing
