"""What must hold of an op before a kernel is made for it.

One function an op code: what the C++ init functions assert (``initMatmulForward`` and its like in
``nn-cpu-ops.cpp``), and everything else that a kernel needs to stay inside its memory. Kernels trust a
context that passes; they check only what comes as data with each batch: positions, tokens, indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from types import MappingProxyType

from dllama_ops import params
from dllama_ops._checker import Checker, shape_of, spec_of
from dllama_ops.kernel import OpContext
from dllama_proto.enums import FloatType, OpCode, RopeType, op_quant_type
from dllama_proto.floats import is_whole_blocks

__all__ = ["check_context"]


def check_context(context: OpContext) -> list[str]:
    """Return every fault of an op's shapes, types and numbers; with none, a kernel may trust it.

    Each fault says what was expected and what came. Never raises, whatever the numbers are.
    """
    check = Checker(context)
    if _common(check):
        _CHECKS[context.key.code](check)
    return check.faults


def _common(check: Checker) -> bool:
    """Check what any op needs; False where looking further makes no sense."""
    context = check.context
    record = _PARAMS[context.key.code]
    has_weight = context.key.code in _WEIGHTED
    sound = [
        check.positive(n_batches=context.n_batches, n_threads=context.n_threads),
        check.expect(
            isinstance(context.params, record), "params", record.__name__, type(context.params).__name__
        ),
        check.memory("input", context.input),
        check.memory("output", context.output, writable=True),
        check.expect(
            (context.weight is not None) == has_weight,
            "weight",
            "one" if has_weight else "none",
            spec_of(context.weight),
        )
        and (context.weight is None or check.weight_size()),
    ]
    if not all(sound):
        return False
    weight_type = context.weight.float_type if context.weight else FloatType.UNK
    quant = op_quant_type(context.input.float_type, weight_type, context.output.float_type)
    expected = f"the types of {context.key.quant.name}"
    came = f"{context.input.float_type.name}, {weight_type.name}, {context.output.float_type.name}"
    return check.expect(quant is context.key.quant, "input, weight and output", expected, came)


def _merge_add(check: Checker) -> None:
    source, target = check.source, check.target
    check.rows("input", source, z=1)
    check.rows("output", target, z=1)
    slices = source.x % target.x == 0 and is_whole_blocks(source.float_type, target.x)
    text = f"whole slices of the output's {target.x} values, each of whole blocks"
    check.expect(slices, "input", text, shape_of(source))
    check.apart("input", source)


def _merge_sum(check: Checker) -> None:
    check.rows("input", check.source)
    check.rows("output", check.target, z=1, x=check.source.x)
    check.apart("input", check.source)


def _embedding(check: Checker) -> None:
    check.rows("input", check.source, z=1, x=1)
    check.rows("output", check.target, z=1, x=check.weight.x)
    check.expect(check.weight.z == 1, "weight", "z = 1", spec_of(check.weight))
    check.apart("input", check.source)


def _inv_rms(check: Checker) -> None:
    config: params.InvRmsParams = check.params
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, z=1)
    check.columns(config.n_columns)
    wide = check.target.x >= config.n_columns
    check.expect(wide, "output", f"x >= n_columns = {config.n_columns}", shape_of(check.target))
    check.expect(isfinite(config.epsilon) and config.epsilon >= 0, "epsilon", "0 or more", config.epsilon)
    check.apart("input", check.source)


def _rms_norm(check: Checker) -> None:
    config: params.RmsNormParams = check.params
    weight = check.weight
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, z=1, x=check.source.x)
    if check.columns(config.n_columns):
        x = check.source.x // config.n_columns
        check.expect(
            (weight.z, weight.y, weight.x) == (1, 1, x), "weight", f"z=1 y=1 x={x}", spec_of(weight)
        )
    if check.f32("inv_rms", config.inv_rms, x=config.n_columns, or_wider=True):
        check.apart("inv_rms", config.inv_rms)
    check.apart("input", check.source, or_same=True)


def _matmul(check: Checker) -> None:
    config: params.MatmulParams = check.params
    weight, active = check.weight, config.n_active_experts
    check.rows("input", check.source, z=max(active, 1), x=weight.y)
    check.rows("output", check.target, z=max(active, 1), x=weight.x)
    n_weights = max(config.n_experts, 1)
    check.expect(weight.z == n_weights, "weight", f"z={n_weights} (n_experts)", spec_of(weight))
    text = f"0..{config.n_experts} (n_experts)"
    check.expect(0 <= active <= config.n_experts, "n_active_experts", text, active)
    indexes = config.active_expert_indexes
    if indexes is None:
        check.expect(active <= 0, "active_expert_indexes", "a buffer", "none")
    elif active > 0 and check.f32("active_expert_indexes", indexes, x=active):
        check.apart("active_expert_indexes", indexes)
    check.apart("input", check.source)


def _rope(check: Checker) -> None:
    config: params.RopeParams = check.params
    name, width = ("q_dim0", config.q_dim0) if config.is_q else ("kv_dim0", config.kv_dim0)
    sized = check.positive(
        seq_len=config.seq_len, head_dim=config.head_dim, q_dim0=config.q_dim0, kv_dim0=config.kv_dim0
    ) & check.even(head_dim=config.head_dim, q_dim0=config.q_dim0, kv_dim0=config.kv_dim0)
    check.positive_numbers(rope_theta=config.rope_theta)
    check.in_place()
    check.rows("input", check.source, z=1)
    check.expect(check.source.x == width, "input", f"x = {name} = {width}", shape_of(check.source))
    if check.f32("positions", config.positions, x=1):
        check.apart("positions", config.positions)
    if not sized:
        return
    if config.type is RopeType.FALCON:
        check.expect(width % config.head_dim == 0, name, f"whole heads of {config.head_dim}", width)
        cache_x = config.head_dim
    else:
        _rope_slice(check)
        cache_x = config.slice_dim
    if check.f32("cache", config.cache, y=config.seq_len, x=cache_x, whole=True, writable=True):
        check.apart("cache", config.cache)
        check.disjoint("cache", config.cache, "positions", config.positions)


def _rope_slice(check: Checker) -> None:
    """Check what the LLAMA types see of the model's row: columns kv_dim_start to q_dim_end."""
    config: params.RopeParams = check.params
    check.even(kv_dim_start=config.kv_dim_start, q_shift=config.q_shift, slice_dim=config.slice_dim)
    length = config.q_dim_end - config.kv_dim_start
    text = f"q_dim_end - kv_dim_start = {length}"
    check.expect(config.slice_dim == length, "slice_dim", text, config.slice_dim)
    q_end = config.q_shift + config.q_dim0
    check.expect(q_end == config.slice_dim, "q_shift + q_dim0", f"slice_dim = {config.slice_dim}", q_end)
    text = f"at most slice_dim = {config.slice_dim}"
    check.expect(config.kv_dim0 <= config.slice_dim, "kv_dim0", text, config.kv_dim0)
    # C++ scales for either type; the two differ only in name.
    if config.scaling_factor != 1:
        low, high = config.low_freq_factor, config.high_freq_factor
        check.positive_numbers(
            scaling_factor=config.scaling_factor, low_freq_factor=low, high_freq_factor=high
        )
        check.expect(low != high, "high_freq_factor", f"another number than low_freq_factor = {low}", high)


def _multihead_att(check: Checker) -> None:
    config: params.MultiHeadAttParams = check.params
    if not check.positive(
        n_heads=config.n_heads,
        n_heads0=config.n_heads0,
        n_kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        seq_len=config.seq_len,
        kv_dim0=config.kv_dim0,
    ):
        return
    width = config.n_heads0 * config.head_dim
    check.rows("output", check.target, z=1, x=width)
    _heads(check)
    sound = [
        check.f32("positions", config.positions, x=1),
        check.f32("query", config.query, x=width),
        check.f32("key_cache", config.key_cache, y=config.seq_len, x=config.kv_dim0, whole=True),
        check.f32("value_cache", config.value_cache, y=config.seq_len, x=config.kv_dim0, whole=True),
        check.f32("att", config.att, x=config.n_heads0 * config.seq_len, whole=True, writable=True),
    ]
    if all(sound):
        check.apart("att", config.att)
        for what in ("positions", "query", "key_cache", "value_cache"):
            tensor = getattr(config, what)
            check.apart(what, tensor)
            check.disjoint(what, tensor, "att", config.att)


def _heads(check: Checker) -> None:
    config: params.MultiHeadAttParams = check.params
    n_heads, n_kv_heads, head_dim = config.n_heads, config.n_kv_heads, config.head_dim
    check.expect(config.n_heads0 <= n_heads, "n_heads0", f"at most n_heads = {n_heads}", config.n_heads0)
    whole = check.expect(
        n_heads % n_kv_heads == 0, "n_heads", f"a multiple of n_kv_heads = {n_kv_heads}", n_heads
    ) & check.expect(
        config.kv_dim0 % head_dim == 0, "kv_dim0", f"whole heads of head_dim = {head_dim}", config.kv_dim0
    )
    if whole:
        # However heads are split over nodes, the KV head of the last local head must be here.
        last = (config.n_heads0 - 1) // (n_heads // n_kv_heads)
        text = f"at least {last + 1} KV heads of {head_dim}"
        check.expect(last < config.kv_dim0 // head_dim, "kv_dim0", text, config.kv_dim0)


def _in_place(check: Checker) -> None:
    check.same_rows()
    check.in_place()


def _mul(check: Checker) -> None:
    config: params.MulParams = check.params
    check.same_rows()
    check.apart("input", check.source, or_same=True)
    if check.f32("multiplier", config.multiplier, z=check.source.z, x=check.source.x):
        check.apart("multiplier", config.multiplier, or_same=True)


def _scale(check: Checker) -> None:
    config: params.ScaleParams = check.params
    check.same_rows()
    check.apart("input", check.source, or_same=True)
    if check.f32("scale", config.scale, z=check.source.z, x=1):
        check.apart("scale", config.scale)


def _cast(check: Checker) -> None:
    check.same_rows()
    check.apart("input", check.source, or_same=check.source.float_type is check.target.float_type)


def _repeat_z(check: Checker) -> None:
    check.rows("input", check.source, z=1)
    check.rows("output", check.target, x=check.source.x)
    check.apart("input", check.source)


def _shift(check: Checker) -> None:
    config: params.ShiftParams = check.params
    source, target = check.source, check.target
    check.rows("input", source, z=1)
    raw = (target.z, target.y) == (1, 1) and target.x % source.x == 0
    check.expect(raw, "output", f"a raw buffer of whole rows of {source.x} values", shape_of(target))
    check.apart("input", source)
    if check.f32("indexes", config.indexes, x=1):
        check.apart("indexes", config.indexes)


def _moe_gate(check: Checker) -> None:
    config: params.MoeGateParams = check.params
    source = check.source
    check.rows("input", source, z=1)
    check.apart("input", source)
    if not check.expect(0 < config.k <= source.x, "k", f"1..{source.x}, the input's x", config.k):
        return
    check.rows("output", check.target, z=config.k, x=1)
    if check.f32("indexes", config.indexes, x=config.k, writable=True):
        check.apart("indexes", config.indexes)
        check.disjoint("indexes", config.indexes, "the input", source)


_WEIGHTED = frozenset({OpCode.EMBEDDING, OpCode.RMS_NORM, OpCode.MATMUL})

_PARAMS: Mapping[OpCode, type[params.OpParams]] = MappingProxyType(
    {
        OpCode.MERGE_ADD: params.NoParams,
        OpCode.MERGE_SUM: params.NoParams,
        OpCode.EMBEDDING: params.NoParams,
        OpCode.INV_RMS: params.InvRmsParams,
        OpCode.RMS_NORM: params.RmsNormParams,
        OpCode.MATMUL: params.MatmulParams,
        OpCode.ROPE: params.RopeParams,
        OpCode.MULTIHEAD_ATT: params.MultiHeadAttParams,
        OpCode.GELU: params.NoParams,
        OpCode.SILU: params.NoParams,
        OpCode.MUL: params.MulParams,
        OpCode.SCALE: params.ScaleParams,
        OpCode.CAST: params.NoParams,
        OpCode.REPEAT_Z: params.NoParams,
        OpCode.SHIFT: params.ShiftParams,
        OpCode.SOFTMAX: params.NoParams,
        OpCode.MOE_GATE: params.MoeGateParams,
    }
)

_CHECKS: Mapping[OpCode, Callable[[Checker], None]] = MappingProxyType(
    {
        OpCode.MERGE_ADD: _merge_add,
        OpCode.MERGE_SUM: _merge_sum,
        OpCode.EMBEDDING: _embedding,
        OpCode.INV_RMS: _inv_rms,
        OpCode.RMS_NORM: _rms_norm,
        OpCode.MATMUL: _matmul,
        OpCode.ROPE: _rope,
        OpCode.MULTIHEAD_ATT: _multihead_att,
        OpCode.GELU: _in_place,
        OpCode.SILU: _in_place,
        OpCode.MUL: _mul,
        OpCode.SCALE: _scale,
        OpCode.CAST: _cast,
        OpCode.REPEAT_Z: _repeat_z,
        OpCode.SHIFT: _shift,
        OpCode.SOFTMAX: _in_place,
        OpCode.MOE_GATE: _moe_gate,
    }
)
