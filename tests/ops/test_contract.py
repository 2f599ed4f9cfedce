"""No context passes the contract that a kernel could not run: bad ones are described, whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dllama_ops import (
    KernelDataError,
    KernelKey,
    OpContext,
    Tensor,
    build_kernel_table,
    check_context,
    make_plugin_manager,
)
from dllama_ops.params import NoParams
from dllama_ops.testing import BoundCase, OpCase, random_case
from dllama_proto.enums import FloatType, OpCode, OpQuantType
from dllama_proto.floats import Q40_BLOCK
from tests.ops.test_completeness import EXTRA, PAIRS

F32 = OpQuantType.F32_F32_F32
TABLE = build_kernel_table(make_plugin_manager(), prefer="numpy")


def _misaligned(data: Any) -> Any:
    memory = np.zeros(data.nbytes + 1, np.uint8)
    return np.frombuffer(memory[1:].data, data.dtype).reshape(data.shape)


def _read_only(data: Any) -> Any:
    view = data.view()
    view.flags.writeable = False
    return view


#: Ways to spoil a tensor's memory.
SPOILED: dict[str, Callable[[Any], Any]] = {
    "fewer rows": lambda data: data[:, :-1],
    "fewer columns": lambda data: data[:, :, :-1],
    "no z": lambda data: data[:0],
    "two z": lambda data: np.concatenate([data, data]),
    "more rows": lambda data: np.concatenate([data, data], axis=1),
    "more columns": lambda data: np.concatenate([data, data], axis=2),
    "flat": lambda data: data.reshape(-1),
    "every other column": lambda data: np.concatenate([data, data], axis=2)[:, :, ::2],
    "backwards": lambda data: data[:, :, ::-1],
    "float64": lambda data: np.zeros(data.shape, np.float64),
    "blocks": lambda data: np.zeros(data.shape, Q40_BLOCK),
    "misaligned": _misaligned,
    "read only": _read_only,
}
NUMBERS = [-1, 0, 1, 2, 3, 7, 32, 64, 2**31, 2**32 - 1]
FLOATS = [nan, float("inf"), -1.0, 0.0, 1.0, 1e-30]


def _harmless(tensor: Tensor, how: str) -> bool:
    """Tell whether a way to spoil memory leaves this tensor as good: one column, or packed blocks."""
    if how == "misaligned":
        return tensor.float_type is not FloatType.F32
    return how in ("backwards", "every other column") and tensor.data.shape[2] == 1


def _with(record: Any, **changes: Any) -> Any:
    """Replace fields that are only known by name."""
    return replace(record, **changes)


def _spoil(tensor: Tensor, how: str) -> Tensor:
    flat = tensor.data.ndim != 3  # spoiled already
    return tensor if flat else Tensor(tensor.float_type, SPOILED[how](tensor.data))


@dataclass(frozen=True)
class _Mutant:
    """A right context in which one thing, or two, were changed."""

    case: OpCase
    bound: BoundCase = field(repr=False)
    context: OpContext = field(repr=False)


@st.composite
def _mutants(draw: st.DrawFn) -> _Mutant:
    case = random_case(draw(st.sampled_from(PAIRS + EXTRA)), draw(st.integers(0, 30)))
    bound = case.bind()
    context = bound.context
    for _ in range(draw(st.integers(1, 2))):
        context = _mutate(draw, context)
    return _Mutant(case, bound, context)


def _mutate(draw: st.DrawFn, context: OpContext) -> Any:
    places = ["input", "output", "n_batches", "key", "swap"]
    places += [f"params.{each.name}" for each in fields(context.params)]
    if context.weight is not None:
        places += [f"weight.{name}" for name in ("z", "y", "x", "float_type")] + ["weight"]
    place = draw(st.sampled_from(places))
    if place == "swap":
        return replace(context, input=context.output, output=context.input)
    if place == "key":
        return replace(context, key=KernelKey(context.key.code, draw(st.sampled_from(OpQuantType))))
    if place == "n_batches":
        return replace(context, n_batches=draw(st.sampled_from(NUMBERS)))
    if place == "weight":
        return replace(context, weight=None)
    if place in ("input", "output"):
        how = draw(st.sampled_from(sorted(SPOILED)))
        return _with(context, **{place: _spoil(getattr(context, place), how)})
    record, _, name = place.partition(".")
    value = getattr(getattr(context, record), name)
    changed = _with(getattr(context, record), **{name: _another(draw, value, context)})
    return _with(context, **{record: changed})


def _another(draw: st.DrawFn, value: Any, context: OpContext) -> Any:
    if isinstance(value, Tensor):
        choice = draw(st.sampled_from(["input", "output", *sorted(SPOILED)]))
        return getattr(context, choice) if choice in ("input", "output") else _spoil(value, choice)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, FloatType):
        return draw(st.sampled_from(FloatType))
    if isinstance(value, float):
        return draw(st.sampled_from(FLOATS))
    if isinstance(value, int) and type(value) is int:
        return draw(st.sampled_from([*NUMBERS, value - 1, value + 1, value * 2]))
    return value


@pytest.mark.slow
@given(_mutants())
@settings(max_examples=150, deadline=None)
def test_what_passes_can_run(mutant: _Mutant) -> None:
    context = mutant.context
    faults = check_context(context)
    assert all(": expected " in fault and ", got " in fault for fault in faults)
    event("refused" if faults else "passed")
    weight = context.weight
    if faults or context.key not in TABLE.choices or (weight and weight.n_bytes > 2**24):
        return  # an embedding may have any number of rows; whether they fit is not the contract's question
    # It passed, so the kernel must run within its memory; NumPy would raise on anything out of bounds.
    kernel = TABLE.get(context.key).factory(context)
    if weight is not None:
        kernel.load_weight(0, bytes(weight.n_bytes))
    kernel.finish_weight()
    try:
        kernel.forward(min(mutant.case.batch_size, context.n_batches))
    except KernelDataError:
        event("bad data")
    assert mutant.bound.overrun() == []


@pytest.mark.parametrize("how", sorted(set(SPOILED) - {"read only"}))
@pytest.mark.parametrize("key", PAIRS, ids=str)
def test_no_tensor_may_be_spoiled(key: KernelKey, how: str) -> None:
    """Each single tensor of an op is checked: spoil one after the other."""
    context = _wide_case(key).bind().context
    # Attention reads its query, not its input.
    places = ["output"] if key.code is OpCode.MULTIHEAD_ATT else ["input", "output"]
    for owner, names in (
        (context, places),
        (context.params, [each.name for each in fields(context.params)]),
    ):
        for name in names:
            tensor = getattr(owner, name)
            if not isinstance(tensor, Tensor) or _harmless(tensor, how):
                continue
            if how in _ADMITTED.get((key.code, name), ()):
                continue
            spoiled = _with(owner, **{name: _spoil(tensor, how)})
            faults = check_context(spoiled if owner is context else replace(context, params=spoiled))
            # A wrong input may show as an output that does not fit it.
            assert faults if owner is context else any(name in fault for fault in faults), name


#: What an op can do with all the same: more or fewer slices, columns to spare, any cache that holds a row.
_ADMITTED = {
    (OpCode.MERGE_ADD, "input"): {"fewer columns", "more columns"},
    (OpCode.MERGE_ADD, "output"): {"fewer columns", "more columns"},
    (OpCode.MERGE_SUM, "input"): {"two z"},
    (OpCode.INV_RMS, "input"): {"fewer columns", "more columns"},
    (OpCode.INV_RMS, "output"): {"fewer columns", "more columns"},
    (OpCode.RMS_NORM, "inv_rms"): {"fewer columns", "more columns"},
    (OpCode.REPEAT_Z, "output"): {"two z"},
    (OpCode.SHIFT, "output"): {"more columns"},
    (OpCode.MOE_GATE, "input"): {"fewer columns", "more columns"},
}


def _wide_case(key: KernelKey) -> OpCase:
    """Return a case that has experts where it can, and more than one of everything that can be spoiled."""
    for seed in range(1000):
        case = random_case(key, seed)
        context = case.bind().context
        tensors = [context.input, context.output]
        values = [getattr(context.params, each.name) for each in fields(context.params)]
        tensors += [value for value in values if isinstance(value, Tensor)]
        several = all(tensor.data.shape[1] > 1 or tensor.z == tensor.y == 1 for tensor in tensors)
        if several and context.n_batches > 1 and None not in values:
            return case
    raise AssertionError(f"no wide case for {key}")


@pytest.mark.parametrize("key", PAIRS, ids=str)
def test_memory_that_an_op_writes_must_be_writable(key: KernelKey) -> None:
    context = _wide_case(key).bind().context
    assert check_context(replace(context, output=_spoil(context.output, "read only")))
    for name in {"cache", "att"} & {each.name for each in fields(context.params)}:
        tensor = _spoil(getattr(context.params, name), "read only")
        faults = check_context(replace(context, params=_with(context.params, **{name: tensor})))
        assert any(fault.startswith(f"{name}: expected writable memory") for fault in faults)


def _faults_with(code: OpCode, quant: OpQuantType = F32, **changes: Any) -> list[str]:
    """Change params of a right context; return what the contract says."""
    context = _wide_case(KernelKey(code, quant)).bind().context
    return check_context(replace(context, params=_with(context.params, **changes)))


@pytest.mark.parametrize(
    ("code", "changes", "message"),
    [
        (OpCode.INV_RMS, {"n_columns": 0}, "n_columns: expected 1.."),
        (OpCode.INV_RMS, {"n_columns": 10**6}, "n_columns: expected 1.."),
        (OpCode.INV_RMS, {"epsilon": nan}, "epsilon: expected 0 or more, got nan"),
        (OpCode.RMS_NORM, {"n_columns": -1}, "n_columns: expected 1.."),
        (OpCode.MATMUL, {"n_experts": 900}, "weight: expected z=900 (n_experts)"),
        (OpCode.MATMUL, {"n_active_experts": 901}, "n_active_experts: expected 0.."),
        (
            OpCode.MATMUL,
            {"active_expert_indexes": None},
            "active_expert_indexes: expected a buffer, got none",
        ),
        (OpCode.ROPE, {"head_dim": 0}, "head_dim: expected at least 1, got 0"),
        (OpCode.ROPE, {"head_dim": 7}, "head_dim: expected an even number, got 7"),
        (OpCode.ROPE, {"rope_theta": 0.0}, "rope_theta: expected a positive number, got 0.0"),
        (OpCode.ROPE, {"seq_len": 10**6}, "cache: expected F32 [1][1000000]["),
        (OpCode.MULTIHEAD_ATT, {"n_kv_heads": 0}, "n_kv_heads: expected at least 1, got 0"),
        (OpCode.MULTIHEAD_ATT, {"seq_len": 10**6}, "key_cache: expected F32 [1][1000000]["),
        (OpCode.MULTIHEAD_ATT, {"kv_dim0": 10**6}, "value_cache: expected F32 "),
        (OpCode.MOE_GATE, {"k": 0}, "k: expected 1.."),
        (OpCode.MOE_GATE, {"k": 10**6}, "k: expected 1.."),
    ],
)
def test_numbers_are_checked(code: OpCode, changes: dict[str, Any], message: str) -> None:
    faults = _faults_with(code, **changes)
    assert any(fault.startswith(message) for fault in faults), faults


def _attention(**changes: int) -> list[str]:
    """Check attention of one node: 4 heads of 8, 2 KV heads, all on this node unless changed."""
    sizes = {
        "n_heads": 4,
        "n_heads0": 4,
        "n_kv_heads": 2,
        "head_dim": 8,
        "seq_len": 5,
        "kv_dim0": 16,
    } | changes
    from dllama_ops.params import MultiHeadAttParams

    def f32(y: int, x: int) -> Tensor:
        return Tensor(FloatType.F32, np.zeros((1, y, x), np.float32))

    width = sizes["n_heads0"] * sizes["head_dim"]
    out = f32(3, width)
    params = MultiHeadAttParams(
        **sizes,
        positions=f32(3, 1),
        query=f32(3, width),
        key_cache=f32(sizes["seq_len"], sizes["kv_dim0"]),
        value_cache=f32(sizes["seq_len"], sizes["kv_dim0"]),
        att=f32(3, sizes["n_heads0"] * sizes["seq_len"]),
    )
    key = KernelKey(OpCode.MULTIHEAD_ATT, F32)
    return check_context(OpContext(key, "att", 0, 3, 1, out, out, None, params))


def test_heads_may_split_unevenly_as_long_as_their_keys_are_here() -> None:
    assert _attention() == []
    assert _attention(n_heads0=3) == []
    assert _attention(n_heads0=2, kv_dim0=8) == []
    assert _attention(n_heads0=1, kv_dim0=16) == []
    assert _attention(n_heads0=3, kv_dim0=8) == ["kv_dim0: expected at least 2 KV heads of 8, got 8"]
    assert _attention(kv_dim0=12)[0] == "kv_dim0: expected whole heads of head_dim = 8, got 12"
    assert _attention(n_kv_heads=3)[0] == "n_heads: expected a multiple of n_kv_heads = 3, got 4"
    assert "n_heads0: expected at most n_heads = 4, got 5" in _attention(n_heads0=5)


@pytest.mark.parametrize("code", [OpCode.ROPE, OpCode.GELU, OpCode.SILU, OpCode.SOFTMAX])
def test_ops_that_work_in_place_need_the_input_as_output(code: OpCode) -> None:
    context = _wide_case(KernelKey(code, F32)).bind().context
    other = Tensor(FloatType.F32, context.output.data.copy())
    message = "output: expected the input's memory (the op works in place), got other memory"
    assert message in check_context(replace(context, output=other))


@pytest.mark.parametrize(
    "code",
    [OpCode.MATMUL, OpCode.MERGE_ADD, OpCode.MERGE_SUM, OpCode.REPEAT_Z, OpCode.SHIFT, OpCode.INV_RMS],
)
def test_ops_that_read_what_they_would_overwrite_need_memory_apart(code: OpCode) -> None:
    context = _wide_case(KernelKey(code, F32)).bind().context
    faults = check_context(replace(context, output=context.input))
    message = "input: expected memory apart from that of the output, got memory that overlaps it"
    assert message in faults


def test_columns_of_one_buffer_are_apart() -> None:
    data = np.zeros((1, 4, 64), np.float32)
    key = KernelKey(OpCode.CAST, F32)

    def cast(start: int) -> list[str]:
        source = Tensor(FloatType.F32, data[:, :, :32])
        target = Tensor(FloatType.F32, data[:, :, start : start + 32])
        return check_context(OpContext(key, "cast", 0, 4, 1, source, target, None, NoParams()))

    assert cast(32) == []
    assert cast(0) == []
    assert cast(31) == ["input: expected memory apart from that of the output, got memory that overlaps it"]


def test_all_faults_come_at_once() -> None:
    faults = _faults_with(OpCode.ROPE, rope_theta=-1.0, q_dim0=0, kv_dim0=0, seq_len=0)
    assert {fault.partition(":")[0] for fault in faults} >= {"rope_theta", "q_dim0", "kv_dim0", "seq_len"}


def test_params_of_another_op_are_refused() -> None:
    context = _wide_case(KernelKey(OpCode.ROPE, F32)).bind().context
    faults = check_context(replace(context, params=NoParams()))
    assert faults == ["params: expected RopeParams, got NoParams"]


def test_a_weight_where_none_belongs_and_none_where_one_does() -> None:
    matmul = _wide_case(KernelKey(OpCode.MATMUL, F32)).bind().context
    cast = _wide_case(KernelKey(OpCode.CAST, F32)).bind().context
    assert check_context(replace(matmul, weight=None)) == ["weight: expected one, got none"]
    (fault,) = check_context(replace(cast, weight=matmul.weight))
    assert fault.startswith("weight: expected none, got F32 z=")
