"""The cache of cosines and sines: filled once however many ops share it, and again where it is not theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dllama_ops import KernelKey, OpContext, Tensor
from dllama_ops.params import RopeParams
from dllama_ops.reference import rope
from dllama_ops.scope import NodeScope
from dllama_proto.enums import FloatType, OpCode, OpQuantType, RopeType

LLAMA = RopeParams(
    type=RopeType.LLAMA,
    is_q=True,
    positions=Tensor(FloatType.F32, np.zeros((1, 4, 1), np.float32)),
    cache=Tensor(FloatType.F32, np.zeros((1, 300, 96), np.float32)),
    scaling_factor=1.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    orig_max_seq_len=64,
    q_dim0=64,
    kv_dim0=32,
    kv_dim_start=32,
    q_dim_end=128,
    q_shift=32,
    slice_dim=96,
    seq_len=300,
    head_dim=16,
    rope_theta=10000.0,
)


def _fresh(params: RopeParams) -> RopeParams:
    return replace(params, cache=Tensor(FloatType.F32, np.zeros_like(params.cache.data)))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many rows are computed, call by call."""
    rows: list[int] = []
    original = rope._write_angles

    def spy(*arguments: object) -> None:
        rows.append(len(arguments[1]))  # type: ignore[arg-type]
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rope, "_write_angles", spy)
    return rows


def test_a_second_op_leaves_the_cache_as_it_is(written: list[int]) -> None:
    params = _fresh(LLAMA)
    rope.fill_cache(params)
    assert sum(written) >= 300
    first = params.cache.data.copy()
    written.clear()
    for is_q in (True, False, True):
        rope.fill_cache(replace(params, is_q=is_q))
    assert written == [2, 2, 2]
    assert np.array_equal(first, params.cache.data)


@pytest.mark.parametrize(
    "other",
    [
        {"rope_theta": 10000.5},
        {"head_dim": 32},
        {"scaling_factor": 8.0, "type": RopeType.LLAMA3_1},
        {"kv_dim_start": 34, "q_dim_end": 130},
    ],
)
def test_other_parameters_fill_it_again(other: dict[str, object]) -> None:
    params = _fresh(LLAMA)
    rope.fill_cache(params)
    changed = replace(params, **other)  # type: ignore[arg-type]
    rope.fill_cache(changed)
    alone = _fresh(changed)
    rope.fill_cache(alone)
    assert np.array_equal(changed.cache.data, alone.cache.data)


@pytest.mark.parametrize("kind", list(RopeType))
@pytest.mark.parametrize("seq_len", [1, 2, 300, 2000])
def test_every_position_is_filled(kind: RopeType, seq_len: int) -> None:
    """A cache longer than one chunk has no seams."""
    width = 16 if kind is RopeType.FALCON else 96
    cache = Tensor(FloatType.F32, np.full((1, seq_len, width), np.nan, np.float32))
    params = replace(LLAMA, type=kind, cache=cache, seq_len=seq_len)
    rope.fill_cache(params)
    freqs = rope.frequencies(params)
    angles = np.arange(seq_len, dtype=np.float32)[:, None] * freqs
    half = len(freqs)
    rows = cache.data[0]
    cos, sin = (
        (rows[:, :half], rows[:, half:]) if kind is RopeType.FALCON else (rows[:, ::2], rows[:, 1::2])
    )
    assert np.abs(cos - np.cos(angles.astype(np.float64))).max() < 1e-6
    assert np.abs(sin - np.sin(angles.astype(np.float64))).max() < 1e-6


def test_binding_an_op_fills_the_cache() -> None:
    params = _fresh(LLAMA)
    x = Tensor(FloatType.F32, np.zeros((1, 4, 64), np.float32))
    key = KernelKey(OpCode.ROPE, OpQuantType.F32_F32_F32)
    rope.Rope(OpContext(key, "rope", 0, 4, 1, x, x, None, params))
    assert np.all(params.cache.data[0, 0, ::2] == 1)
    assert np.any(params.cache.data[0, 299] != 0)


def test_ops_of_a_node_fill_a_cache_once_and_as_the_last_wants_it(written: list[int]) -> None:
    params, scope = _fresh(LLAMA), NodeScope()
    x = Tensor(FloatType.F32, np.zeros((1, 4, 64), np.float32))
    key = KernelKey(OpCode.ROPE, OpQuantType.F32_F32_F32)
    for number in range(101):
        theta = 10_000.0 + number % 2
        rope.Rope(
            OpContext(key, "rope", 0, 4, 1, x, x, None, replace(params, rope_theta=theta), scope=scope)
        )
    assert written == []
    assert not params.cache.data.any()
    for _ in scope.shared_work():
        pass
    assert sum(written) == 300
    alone = _fresh(LLAMA)
    rope.fill_cache(alone)
    assert np.array_equal(params.cache.data, alone.cache.data)


@pytest.mark.parametrize("kind", list(RopeType))
def test_a_row_longer_than_a_piece_is_filled_without_seams(
    kind: RopeType, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = 16 if kind is RopeType.FALCON else 96
    cache = Tensor(FloatType.F32, np.zeros((1, 300, width), np.float32))
    params = replace(
        LLAMA, type=kind, cache=cache, scaling_factor=8.0 if kind is RopeType.LLAMA3_1 else 1.0
    )
    rope.fill_cache(params)
    pieces = _fresh(params)
    monkeypatch.setattr(rope, "_CHUNK", 5)
    assert sum(1 for _ in rope.cache_pieces(pieces)) > 300
    assert np.array_equal(pieces.cache.data, cache.data)
    before = pieces.cache.data.copy()
    rope.fill_cache(pieces)
    assert np.array_equal(pieces.cache.data, before)
