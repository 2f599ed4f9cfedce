"""Native kernels through Python: weights from any cut, shared threads, and what happens without the extension."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama_ops import KernelKey, WeightPieceError, build_kernel_table, make_plugin_manager, native
from dllama_ops.params import MatmulParams
from dllama_ops.tensor import WeightSpec
from dllama_ops.testing import Memory, OpCase, Tolerance, View, check_kernel, random_case, tolerance_of
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_proto.floats import bytes_to_values, quantize_q40, quantize_q80

if native.unavailable is not None:
    pytest.skip(f"no native kernels: {native.unavailable}", allow_module_level=True)

from dllama_ops.native import _core
from dllama_ops.native.kernel import KIND_NAMES, NativeFactory, engine_for

VARIANTS = _core.kernel_sets()
MATMUL = KernelKey(OpCode.MATMUL, OpQuantType.Q80_Q40_F32)


def _large_case(n: int, d: int, rows: int) -> OpCase:
    """Make a matmul of real width, with its result in float64."""
    case = random_case(MATMUL, 1)
    rng = np.random.default_rng(n + d + rows)
    x = quantize_q80(rng.standard_normal((rows, n), np.float32)).tobytes()
    weight = quantize_q40(rng.standard_normal((d, n), np.float32)).tobytes()
    product = bytes_to_values(FloatType.Q80, x).reshape(rows, n).astype(np.float64) @ bytes_to_values(
        FloatType.Q40, weight
    ).reshape(d, n).T.astype(np.float64)
    return replace(
        case,
        name=f"large-{n}-{d}-{rows}",
        n_batches=rows,
        batch_size=rows,
        memories={
            "in": Memory(FloatType.Q80, 1, rows, n, x),
            "out": Memory(FloatType.F32, 1, rows, d, bytes(4 * rows * d)),
        },
        input=View("in"),
        output=View("out"),
        params=lambda _: MatmulParams(0, 0, None),
        weight=WeightSpec(FloatType.Q40, 1, n, d),
        weight_bytes=weight,
        expected={"out": product.astype(np.float32).tobytes()},
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n_threads", [1, 3, 8])
@pytest.mark.parametrize(("n", "d", "rows"), [(512, 1000, 1), (1024, 301, 32), (64, 640, 17)])
def test_matmuls_of_real_width(variant: str, n_threads: int, n: int, d: int, rows: int) -> None:
    assert tolerance_of(MATMUL) == Tolerance(relative=1e-5)
    assert check_kernel(NativeFactory(variant), _large_case(n, d, rows), n_threads=n_threads) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_every_key_of_the_reference(variant: str) -> None:
    entries = build_kernel_table(make_plugin_manager(), prefer="numpy").entries
    keys = {entry.key for entry in entries if entry.plugin == "numpy"}
    assert {entry.key for entry in entries if entry.source == f"native:{variant}"} == keys


def test_faster_variants_come_first() -> None:
    table = build_kernel_table(make_plugin_manager())
    assert {choice.entry.source for choice in table.choices.values()} == {f"native:{VARIANTS[-1]}"}
    slowest = build_kernel_table(make_plugin_manager(), prefer="native:baseline")
    assert {choice.entry.variant for choice in slowest.choices.values()} == {"baseline"}


@pytest.mark.parametrize("key", [MATMUL, KernelKey(OpCode.RMS_NORM, OpQuantType.F32_F32_F32)], ids=str)
def test_a_finished_weight_takes_no_more_pieces(key: KernelKey) -> None:
    case = random_case(key, 3)
    kernel = NativeFactory(VARIANTS[-1])(case.bind().context)
    kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    with pytest.raises(WeightPieceError, match="finished"):
        kernel.load_weight(0, case.weight_bytes)
    with pytest.raises(WeightPieceError, match="finished"):
        kernel.weight_view(0, 1)


@pytest.mark.parametrize(("offset", "n_bytes"), [(-1, 4), (0, -1), (1 << 70, 1), (0, 1 << 70)])
def test_pieces_that_cannot_be_are_refused(offset: int, n_bytes: int) -> None:
    for key in (MATMUL, KernelKey(OpCode.RMS_NORM, OpQuantType.F32_F32_F32)):
        kernel = NativeFactory(VARIANTS[-1])(random_case(key, 3).bind().context)
        with pytest.raises(WeightPieceError):
            kernel.weight_view(offset, n_bytes)


def test_a_view_of_a_weight_outlives_its_kernel() -> None:
    case = random_case(KernelKey(OpCode.RMS_NORM, OpQuantType.F32_F32_F32), 3)
    kernel = NativeFactory(VARIANTS[-1])(case.bind().context)
    view = kernel.weight_view(0, 4)
    assert view is not None
    del kernel
    view[:] = b"abcd"
    assert bytes(view) == b"abcd"


def test_an_op_without_a_weight_takes_none() -> None:
    kernel = NativeFactory(VARIANTS[-1])(
        random_case(KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32), 0).bind().context
    )
    with pytest.raises(TypeError, match="SILU"):
        kernel.load_weight(0, b"1")


def test_every_kind_of_fault_has_a_name_in_errors() -> None:
    assert set(KIND_NAMES) | {_core.FaultKind.STOPPED} == set(_core.FaultKind)
    assert len(set(KIND_NAMES.values())) == len(KIND_NAMES)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_only_plans_use_is_no_key(variant: str) -> None:
    assert not _core.has_kernel(variant, 1000, OpQuantType.Q80_Q80_Q80)
    assert not _core.has_kernel(variant, 999, OpQuantType.F32_F32_F32)


def test_ops_share_one_team_of_threads() -> None:
    assert engine_for(3) is engine_for(3)
    assert engine_for(3) is not engine_for(2)


def test_batches_larger_than_the_memory_are_refused() -> None:
    case = random_case(KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32), 0)
    kernel = NativeFactory(VARIANTS[-1])(case.bind().context)
    with pytest.raises(ValueError, match="batch"):
        kernel.forward(case.n_batches + 1)


@pytest.mark.slow
def test_without_the_extension_there_is_a_reason_and_no_kernel() -> None:
    program = (
        "import sys; sys.modules['dllama_ops.native._core'] = None\n"
        "from dllama_ops import native, build_kernel_table, make_plugin_manager\n"
        "table = build_kernel_table(make_plugin_manager())\n"
        "assert 'not built' in native.unavailable, native.unavailable\n"
        "assert {e.plugin for e in table.entries} == {'numpy'} and table.failures == (), table\n"
        "from dllama_ops.listing import table_as_text\n"
        "assert 'no native kernels' in table_as_text(table)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
