"""Weights: pieces at any offset in any order, packed in place, decoded within a bounded scratch."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama_ops import Kernel, KernelKey, WeightData, WeightPieceError, WeightSpec
from dllama_ops.params import MatmulParams
from dllama_ops.reference.matmul import Matmul, decode_chunk, pack_chunk
from dllama_ops.testing import BoundCase, Memory, OpCase, View, random_case
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_proto.floats import Q40_BLOCK, dequantize_q40, quantize_q40, quantize_q80

MATMUL = KernelKey(OpCode.MATMUL, OpQuantType.Q80_Q40_F32)
WEIGHTED = [
    MATMUL,
    KernelKey(OpCode.MATMUL, OpQuantType.F32_F32_F32),
    KernelKey(OpCode.RMS_NORM, OpQuantType.F32_F32_F32),
    KernelKey(OpCode.EMBEDDING, OpQuantType.F32_F32_F32),
]


def _kernel(case: OpCase) -> tuple[BoundCase, Kernel]:
    from dllama_ops import build_kernel_table, make_plugin_manager

    bound = case.bind()
    table = build_kernel_table(make_plugin_manager(), prefer="numpy")
    return bound, table.get(case.key).factory(bound.context)


@pytest.mark.slow
@given(key=st.sampled_from(WEIGHTED), seed=st.integers(0, 50), data=st.data())
@settings(max_examples=40, deadline=None)
def test_pieces_in_any_order_make_the_same_weight(key: KernelKey, seed: int, data: st.DataObject) -> None:
    case = random_case(key, seed)
    n_bytes = len(case.weight_bytes)
    cuts = data.draw(st.lists(st.integers(0, n_bytes), max_size=6))
    cuts = sorted({0, n_bytes, *cuts})
    pieces = data.draw(st.permutations(list(pairwise(cuts))))
    bound, kernel = _kernel(case)
    for start, stop in pieces:
        piece = case.weight_bytes[start:stop]
        if data.draw(st.booleans()):
            kinds: list[WeightData] = [piece, bytearray(piece), memoryview(piece)]
            kernel.load_weight(start, data.draw(st.sampled_from(kinds)))
        else:
            view = kernel.weight_view(start, stop - start)
            assert view is not None
            view[:] = piece
    kernel.finish_weight()
    kernel.forward(case.batch_size)
    expected = case.bind()
    expected.fill(case.expected)
    rows = slice(0, case.batch_size)
    came = bound.context.output.data[:, rows]
    assert np.array_equal(came.view(np.uint32), expected.context.output.data[:, rows].view(np.uint32))


def test_pieces_outside_the_weight_are_refused() -> None:
    case = random_case(MATMUL, 0)
    n_bytes = len(case.weight_bytes)
    _, kernel = _kernel(case)
    for offset, size in ((n_bytes, 1), (0, n_bytes + 1), (-1, 1), (5, -1)):
        with pytest.raises(
            WeightPieceError,
            match=f"within the weight's {n_bytes} bytes, got bytes {offset} to {offset + size}$",
        ):
            kernel.weight_view(offset, size)
    with pytest.raises(WeightPieceError, match=f"got bytes {n_bytes - 1} to {n_bytes + 1}"):
        kernel.load_weight(n_bytes - 1, b"ab")
    assert kernel.weight_view(n_bytes, 0) is not None


def test_pieces_that_come_late_are_refused() -> None:
    case = random_case(MATMUL, 0)
    _, kernel = _kernel(case)
    kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    with pytest.raises(WeightPieceError, match="the weight is finished"):
        kernel.load_weight(0, b"\0")


def test_an_op_without_a_weight_takes_none() -> None:
    _, kernel = _kernel(random_case(KernelKey(OpCode.MUL, OpQuantType.F32_F32_F32), 0))
    assert kernel.weight_view(0, 4) is None
    with pytest.raises(TypeError, match="takes no weight"):
        kernel.load_weight(0, b"abcd")


@given(rows=st.integers(1, 20), n=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_packing_keeps_every_bit(rows: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (rows, n * Q40_BLOCK.itemsize), np.uint8).view(Q40_BLOCK)
    blocks["d"] = rng.standard_normal((rows, n)).astype(np.float16)
    expected = dequantize_q40(blocks)
    pack_chunk(blocks)
    decoded = np.empty((2, 16, n * rows), np.float32)
    decode_chunk(decoded, blocks.reshape(-1).view(np.uint8), np.empty((16, n * rows), np.int8))
    # (half, 16, blocks, rows) back to (rows, blocks, half, 16)
    came = decoded.reshape(2, 16, n, rows).transpose(3, 2, 0, 1).reshape(rows, -1)
    assert np.array_equal(came, expected)


def _large(d: int, n: int, n_batches: int, z: int = 1) -> OpCase:
    """Return a matmul of a real model's size; with z > 1, of one expert of each row's choice."""
    rng = np.random.default_rng(1)
    weight: npt.NDArray[np.void] = quantize_q40(rng.standard_normal((z, d, n), np.float32))
    x = quantize_q80(rng.standard_normal((1, n_batches, n), np.float32))
    indexes = rng.integers(0, z, n_batches).astype(np.float32)
    return OpCase(
        name="large",
        key=MATMUL,
        n_batches=n_batches,
        batch_size=n_batches,
        memories={
            "in": Memory(FloatType.Q80, 1, n_batches, n, x.tobytes()),
            "out": Memory(FloatType.F32, 1, n_batches, d, bytes(4 * d * n_batches)),
            "indexes": Memory(FloatType.F32, 1, n_batches, 1, indexes.tobytes()),
        },
        input=View("in"),
        output=View("out"),
        params=lambda m: MatmulParams(z if z > 1 else 0, int(z > 1), m["indexes"] if z > 1 else None),
        weight=WeightSpec(FloatType.Q40, z, n, d),
        weight_bytes=weight.tobytes(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("n_batches", "z"), [(1, 1), (32, 1), (32, 3)])
def test_a_packed_weight_stays_packed(n_batches: int, z: int) -> None:
    case = _large(700, 2048, n_batches, z)
    bound = case.bind()
    tracemalloc.start()
    try:
        kernel = Matmul(bound.context)
        kernel.load_weight(0, case.weight_bytes)
        kernel.finish_weight()
        loaded, _ = tracemalloc.get_traced_memory()
        # Nothing but the packed weight is kept…
        assert loaded < len(case.weight_bytes) + 100_000
        tracemalloc.reset_peak()
        kernel.forward(case.batch_size)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # …and a forward takes a chunk's scratch (1 MiB of float32 and a quarter of that for codes and scales)
    # besides the inputs, however large the weight, and gives it back.
    inputs = 4 * 4 * n_batches * 2048
    assert peak - loaded < 1.3 * 2**20 + inputs + 4 * n_batches * 700
    assert now - loaded < 10_000


@pytest.mark.slow
@pytest.mark.parametrize("z", [1, 3])
def test_chunks_of_a_large_weight_meet(z: int) -> None:
    case = _large(700, 2048, 5, z)
    bound = case.bind()
    kernel = Matmul(bound.context)
    kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    kernel.forward(5)
    weight = dequantize_q40(np.frombuffer(case.weight_bytes, Q40_BLOCK).reshape(z, 700, -1))
    from dllama_proto.floats import dequantize_q80

    x = dequantize_q80(bound.context.input.data[0]).astype(np.float64)
    indexes = bound.arenas["indexes"].tensor.data[0, :, 0].astype(int)
    expected = np.stack([weight[expert] @ row for expert, row in zip(indexes, x, strict=True)])
    difference = np.abs(bound.context.output.data[0] - expected).max(axis=-1)
    assert np.all(difference <= 1e-5 * np.abs(expected).max(axis=-1))
