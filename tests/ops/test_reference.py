"""The reference against the same formulas written out in float64, one number after the other."""

from __future__ import annotations

from math import cos, erf, exp, pi, sin, sqrt, tanh

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dllama_ops import KernelKey
from dllama_ops.params import MatmulParams, MoeGateParams, MultiHeadAttParams, RopeParams
from dllama_ops.reference.activation import Silu, Softmax, gelu, silu, softmax
from dllama_ops.reference.activation import exp as exponential
from dllama_ops.reference.arithmetic import merge_add, merge_sum
from dllama_ops.reference.moe import top_k
from dllama_ops.reference.norm import inv_rms, rms_norm
from dllama_ops.testing import OpCase, golden_case, random_case
from dllama_proto.enums import FloatType, OpCode, OpQuantType, RopeType
from dllama_proto.floats import bytes_to_values, dequantize_q80

seeds = st.integers(0, 2**32 - 1)
Wide = npt.NDArray[np.float64]


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _f32(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _close(
    came: npt.NDArray[np.float32], expected: Wide, *, relative: float = 0, absolute: float = 0
) -> None:
    allowed = absolute + relative * np.abs(expected).max(axis=-1, keepdims=True)
    assert np.all(np.abs(came - expected) <= allowed)


def _before(case: OpCase, name: str) -> npt.NDArray[np.float32]:
    """Decode a whole memory of a case, (z, y, x), as it is before the op."""
    memory = case.memories[name]
    shape = memory.z, memory.y, memory.x
    return bytes_to_values(memory.float_type, memory.contents).reshape(shape)


def _input(case: OpCase) -> Wide:
    data = case.bind().context.input.data[:, : case.batch_size]
    decoded = dequantize_q80(data) if data.dtype.fields else data
    return decoded.astype(np.float64)


def _output(case: OpCase) -> npt.NDArray[np.float32]:
    """Return the reference's output rows of a random case (F32)."""
    bound = case.bind()
    bound.fill(case.expected)
    return bound.context.output.data[:, : case.batch_size]


@given(seed=seeds, quant=st.sampled_from(["F32_F32_F32", "F32_Q40_F32", "Q80_Q40_F32", "Q80_F32_F32"]))
@settings(max_examples=60, deadline=None)
def test_matmul(seed: int, quant: str) -> None:
    case = random_case(KernelKey(OpCode.MATMUL, OpQuantType[quant]), seed)
    spec, params = case.weight, case.bind().context.params
    assert spec is not None
    assert isinstance(params, MatmulParams)
    weight = bytes_to_values(spec.float_type, case.weight_bytes).astype(np.float64)
    weight = weight.reshape(spec.z, spec.x, spec.y)
    x = _input(case)
    expected = np.empty((x.shape[0], case.batch_size, spec.x))
    for slot in range(x.shape[0]):
        for row in range(case.batch_size):
            indexes = params.active_expert_indexes
            expert = 0 if indexes is None else int(indexes.data[0, row, slot])
            expected[slot, row] = weight[expert] @ x[slot, row]
    _close(_output(case), expected, relative=1e-5)


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_multihead_att(seed: int) -> None:
    case = random_case(KernelKey(OpCode.MULTIHEAD_ATT, OpQuantType.F32_F32_F32), seed)
    params = case.bind().context.params
    assert isinstance(params, MultiHeadAttParams)
    d, group = params.head_dim, params.n_heads // params.n_kv_heads
    keys, values = (_before(case, name)[0].astype(np.float64) for name in ("keys", "values"))
    expected = np.empty((case.batch_size, params.n_heads0 * d))
    for row in range(case.batch_size):
        last = int(params.positions.data[0, row, 0])
        for head in range(params.n_heads0):
            here = slice(head * d, head * d + d)
            kv = slice(head // group * d, head // group * d + d)
            q = params.query.data[0, row, here].astype(np.float64)
            with np.errstate(invalid="ignore"):
                scores = keys[: last + 1, kv] @ q / sqrt(d)
                weights = np.exp(scores - scores.max())
                expected[row, here] = weights / weights.sum() @ values[: last + 1, kv]
    finite = np.isfinite(expected)
    came = _output(case)[0]
    # Some cases have an infinite value at the last position; only rows that reach it may see it.
    assert np.array_equal(np.isfinite(came), finite)
    _close(np.where(finite, came, 0), np.where(finite, expected, 0), absolute=5e-5)


def _frequency(params: RopeParams, i: int) -> float:
    """Return the frequency of pair i of a head, as the papers have it."""
    freq = params.rope_theta ** (-2 * i / params.head_dim)
    if params.type is not RopeType.LLAMA3_1:
        return float(freq)
    wavelength = 2 * pi / freq
    low = params.orig_max_seq_len / params.low_freq_factor
    high = params.orig_max_seq_len / params.high_freq_factor
    if wavelength < high:
        return float(freq)
    if wavelength > low:
        return float(freq / params.scaling_factor)
    smooth = params.orig_max_seq_len / wavelength - params.low_freq_factor
    smooth /= params.high_freq_factor - params.low_freq_factor
    return float((1 - smooth) * freq / params.scaling_factor + smooth * freq)


@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_rope(seed: int) -> None:
    case = random_case(KernelKey(OpCode.ROPE, OpQuantType.F32_F32_F32), seed)
    params = case.bind().context.params
    assert isinstance(params, RopeParams)
    x, d = _input(case)[0], params.head_dim
    # The first column's place in its head: a slice of the LLAMA types may begin within one.
    first = 0 if params.type is RopeType.FALCON else params.kv_dim_start
    first += params.q_shift if params.is_q else 0
    expected = x.copy()
    for row in range(case.batch_size):
        position = int(params.positions.data[0, row, 0])
        for column in range(x.shape[1]):
            if params.type is RopeType.FALCON:
                if column % d >= d // 2:
                    continue
                a, b, pair = column, column + d // 2, column % d
            else:
                if column % 2:
                    continue
                a, b, pair = column, column + 1, (first + column) % d // 2
            angle = position * _frequency(params, pair)
            expected[row, a] = x[row, a] * cos(angle) - x[row, b] * sin(angle)
            expected[row, b] = x[row, a] * sin(angle) + x[row, b] * cos(angle)
    _close(_output(case)[0], expected, absolute=4e-5)


@given(seed=seeds, b=st.integers(1, 5), groups=st.integers(1, 4), n=st.integers(1, 300))
def test_norms(seed: int, b: int, groups: int, n: int) -> None:
    rng = _rng(seed)
    x, weight = _f32(rng, b, groups, n, scale=3), _f32(rng, n)
    factors = np.empty((b, groups), np.float32)
    inv_rms(factors, x, 1e-5)
    wide = x.astype(np.float64)
    expected = 1 / np.sqrt((wide**2).mean(axis=-1) + 1e-5)
    _close(factors[..., None], expected[..., None], relative=1e-6)
    out = np.empty_like(x)
    rms_norm(out, x, factors, weight)
    _close(out, wide * expected[..., None] * weight, relative=1e-6)
    rms_norm(x, x, factors, weight)
    assert np.array_equal(out, x)


@given(seed=seeds, scale=st.floats(0.01, 30))
def test_activations(seed: int, scale: float) -> None:
    x = _f32(_rng(seed), 3, 50, scale=scale)
    wide = x.astype(np.float64)
    by_gelu, by_silu, by_softmax = x.copy(), x.copy(), x.copy()
    with np.errstate(over="ignore"):
        gelu(by_gelu)
        silu(by_silu)
        softmax(by_softmax, np.array([50]))
    inner = sqrt(2 / pi) * wide * (1 + 0.044715 * wide**2)
    _close(
        by_gelu,
        np.array(
            [
                [v / 2 * (1 + tanh(t)) for v, t in zip(*rows, strict=True)]
                for rows in zip(wide, inner, strict=True)
            ]
        ),
        absolute=1e-5,
    )
    _close(
        by_gelu, np.array([[v * (1 + erf(v / sqrt(2))) / 2 for v in row] for row in wide]), absolute=1e-3
    )
    _close(by_silu, np.array([[v / (1 + exp(-v)) for v in row] for row in wide]), absolute=2e-5)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    _close(by_softmax, powers / powers.sum(axis=-1, keepdims=True), absolute=2e-5)
    _close(by_softmax.sum(axis=-1, keepdims=True), np.ones((3, 1)), absolute=1e-6)


@given(x=hnp.arrays(np.float32, (3, 17), elements=st.floats(-87, 88, width=32)))
def test_the_exponential_is_a_polynomial_of_degree_four(x: npt.NDArray[np.float32]) -> None:
    """The first term left out is (ln 2 / 2)^5 / 5! = 4e-5, to a value of 0.7 at least; then x is rounded."""
    came = x.copy()
    exponential(came)
    expected = np.exp(x.astype(np.float64))
    assert np.all(np.abs(came - expected) <= 7e-5 * expected)


def test_the_exponential_has_ends() -> None:
    x = np.array([-np.inf, -1e30, -88, np.nan, 88, 89, np.inf], np.float32)
    exponential(x)
    assert x[:4].tolist() == [0, 0, 0, 0]
    assert np.allclose(x[4:], np.exp(88), rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3), (2, 700_000), (40, 5, 9001)])
def test_the_exponential_has_no_seams(shape: tuple[int, ...]) -> None:
    x = np.linspace(-3, 3, shape[-1], dtype=np.float32)
    rows = np.broadcast_to(x, shape).copy()
    exponential(rows)
    assert np.all(np.abs(rows - np.exp(x.astype(np.float64))) <= 7e-5 * 21)


@given(seed=seeds, lengths=st.lists(st.integers(1, 40), min_size=3, max_size=3))
def test_softmax_of_rows_of_different_lengths(seed: int, lengths: list[int]) -> None:
    x = _f32(_rng(seed), 3, 40)
    x[0, lengths[0] :] = np.nan
    expected = np.zeros((3, 40))
    for row, length in enumerate(lengths):
        powers = np.exp(x[row, :length].astype(np.float64))
        expected[row, :length] = powers / powers.sum()
    softmax(x, np.array(lengths)[:, None])
    assert not np.any(x[expected == 0])
    _close(x, expected, absolute=5e-5)


@pytest.mark.parametrize(("name", "least"), [("silu", 0.9), ("silu-z3", 0.9), ("softmax", 0.5)])
def test_most_values_have_the_recorded_bits(name: str, least: float) -> None:
    """The same exponential as the recording program's: quantised later, they fall on the same side."""
    case = golden_case(name)
    bound, expected = case.bind(), case.bind()
    expected.fill(case.expected)
    kernel = Silu if case.key.code is OpCode.SILU else Softmax
    kernel(bound.context).forward(case.batch_size)
    came, wanted = (each.context.output.data[:, : case.batch_size] for each in (bound, expected))
    assert (came == wanted).mean() >= least
    assert np.abs(came - wanted).max() < 1e-7


def test_activations_of_extremes_are_silent() -> None:
    key = KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32)
    case = random_case(key, 0)
    bound = case.bind()
    bound.context.output.data[:] = -1e38
    Silu(bound.context).forward(case.batch_size)
    # e^88 is as large as it gets, so what should be 0 is -1e38 / e^88, as in C++.
    assert np.allclose(bound.context.output.data[:, : case.batch_size], -1e38 / exp(88))


@given(seed=seeds, b=st.integers(1, 4), nodes=st.integers(1, 5), n=st.integers(1, 100))
def test_merges(seed: int, b: int, nodes: int, n: int) -> None:
    rng = _rng(seed)
    x, out = _f32(rng, b, nodes * n), _f32(rng, b, n)
    expected = out.astype(np.float64) + x.astype(np.float64).reshape(b, nodes, n).sum(axis=1)
    merge_add(out, x)
    _close(out, expected, absolute=1e-5)
    z = _f32(rng, nodes, b, n)
    merge_sum(out, z)
    _close(out, z.astype(np.float64).sum(axis=0), absolute=1e-5)


@given(seed=seeds, experts=st.integers(1, 40), data=st.data())
def test_top_k_takes_the_first_of_equals(seed: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    x = _rng(seed).integers(0, 5, (3, experts)).astype(np.float32)
    for row, chosen in zip(x, top_k(x, k), strict=True):
        assert chosen.tolist() == sorted(range(experts), key=lambda i: (-row[i], i))[:k]


@given(seed=seeds)
@settings(max_examples=30)
def test_moe_gate_weights_sum_to_one_where_normalised(seed: int) -> None:
    case = random_case(KernelKey(OpCode.MOE_GATE, OpQuantType.F32_F32_F32), seed)
    params = case.bind().context.params
    assert isinstance(params, MoeGateParams)
    weights = _output(case)[:, :, 0].astype(np.float64)
    largest = np.sort(_input(case)[0], axis=-1)[:, ::-1][:, : params.k].T
    expected = largest / largest.sum(axis=0) if params.norm_topk else largest
    _close(weights.astype(np.float32), expected, absolute=1e-6)


@pytest.mark.parametrize("source", [FloatType.F32, FloatType.Q80])
def test_a_row_of_a_batch_is_the_same_as_alone(source: FloatType) -> None:
    """The order of summation may depend on the batch, nothing else."""
    quant = OpQuantType.Q80_Q40_F32 if source is FloatType.Q80 else OpQuantType.F32_F32_F32
    case = next(
        case
        for case in (random_case(KernelKey(OpCode.MATMUL, quant), seed) for seed in range(50))
        if case.batch_size > 4
    )
    from dllama_ops.reference.matmul import Matmul

    bound = case.bind()
    kernel = Matmul(bound.context)
    kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    kernel.forward(1)
    alone = bound.context.output.data[:, 0].astype(np.float64)
    _close(_output(case)[:, 0], alone, relative=1e-6)
