"""Cases made up at random for every key, with the NumPy reference's result as the expected one.

Shapes are small but awkward: odd widths, batches not full, slices of wider buffers, heads that split
unevenly over nodes. Everything that a kernel has no business to read is filled with NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

import numpy as np

from dllama_ops import params, reference
from dllama_ops.kernel import KernelFactory, KernelKey
from dllama_ops.tensor import Tensor
from dllama_ops.testing._draft import Draft, Values
from dllama_ops.testing.cases import OpCase, View
from dllama_proto.enums import FloatType, OpCode, OpQuantType, RopeType

__all__ = ["bad_data_cases", "random_case", "reference_kernels"]


def random_case(key: KernelKey, seed: int) -> OpCase:
    """Return the case of this key and seed; ``expected`` is what the NumPy reference computes.

    Raises KeyError where the reference has no kernel for the key.
    """
    case = _MAKERS[key.code](Draft(key, seed))
    bound = case.bind()
    kernel = reference_kernels()[key](bound.context)
    if case.weight is not None:
        kernel.load_weight(0, case.weight_bytes)
    kernel.finish_weight()
    kernel.forward(case.batch_size)
    return replace(case, expected=bound.contents())


def bad_data_cases(key: KernelKey, seed: int) -> Iterator[OpCase]:
    """Give cases that a kernel must refuse: one index of a row in the batch is out of range.

    Only ops that take indexes as data have any; see :func:`dllama_ops.testing.check_refusal`.
    """
    memory = _INDEX_MEMORIES.get(key.code)
    case = random_case(key, seed)
    if memory is None or memory not in case.memories:
        return
    good = case.memories[memory]
    bound = _index_bound(case)
    for bad in (bound, bound + 7, -1, float("nan"), float("inf"), -float("inf"), 1e30):
        values = np.frombuffer(good.contents, np.float32).copy().reshape(good.y, good.x)
        start, stop = (case.input.columns or (0, good.x)) if memory == case.input.memory else (0, good.x)
        values[(seed * 5) % case.batch_size, start + seed % (stop - start)] = bad
        memories = {**case.memories, memory: replace(good, contents=values.tobytes())}
        yield replace(case, name=f"{case.name}-{memory}-{bad:g}", memories=memories, expected={})


@cache
def reference_kernels() -> Mapping[KernelKey, KernelFactory]:
    """Return the NumPy reference's kernels, against which others are compared."""
    kernels: dict[KernelKey, KernelFactory] = {}

    def register(
        code: OpCode, quant: OpQuantType, factory: KernelFactory, *, priority: int = 0, variant: str = ""
    ) -> None:
        kernels[KernelKey(code, quant)] = factory

    reference.dllama_register_kernels(register)
    return MappingProxyType(kernels)


def _merge_add(draft: Draft) -> OpCase:
    x, nodes = draft.width(draft.input_type), draft.between(1, 4)
    source = draft.input(nodes * x)
    return draft.case(source, draft.output(x, values=draft.normal(1, draft.batch_size, x)))


def _merge_sum(draft: Draft) -> OpCase:
    x, z = draft.width(), draft.between(1, 5)
    return draft.case(draft.input(x, z=z), draft.output(x))


def _embedding(draft: Draft) -> OpCase:
    x, vocab = draft.width(draft.weight_type, draft.output_type), draft.between(1, 90)
    tokens = draft.whole(1, draft.batch_size, 1, below=vocab)
    source = draft.input(1, values=tokens)
    weight = draft.weight(1, vocab, x, draft.normal(vocab, x))
    return draft.case(source, draft.output(x), **weight)


def _inv_rms(draft: Draft) -> OpCase:
    groups = draft.between(1, 5)
    source = draft.input(groups * draft.width())
    target = draft.output(groups + draft.between(0, 2))
    return draft.case(source, target, lambda _: params.InvRmsParams(epsilon=1e-5, n_columns=groups))


def _rms_norm(draft: Draft) -> OpCase:
    groups, x = draft.between(1, 5), draft.width(draft.input_type)
    in_place = draft.input_type is FloatType.F32 and draft.chance()
    source = draft.input(groups * x, in_place=in_place)
    target = source if in_place else draft.output(groups * x)
    factors = np.full((1, draft.batch_size, groups + draft.between(0, 2)), np.nan, np.float32)
    factors[:, :, :groups] = np.abs(draft.normal(1, draft.batch_size, groups)) + 0.1
    draft.params_rows("inv_rms", factors)
    weight = draft.weight(1, 1, x, draft.normal(x))
    return draft.case(source, target, lambda m: params.RmsNormParams(groups, m["inv_rms"]), **weight)


def _matmul(draft: Draft) -> OpCase:
    n, d = draft.width(draft.input_type, draft.weight_type), draft.between(1, 200)
    experts = draft.between(1, 6) if draft.chance() else 0
    active = draft.between(1, experts) if experts else 0
    z = max(active, 1)
    source, target = draft.input(n, z=z), draft.output(d, z=z)
    weight = draft.weight(max(experts, 1), n, d, draft.normal(max(experts, 1), d, n, scale=0.1))
    if active:
        chosen = np.stack([draft.rng.permutation(experts)[:active] for _ in range(draft.batch_size)])
        draft.params_rows("indexes", chosen[None].astype(np.float32))
    return draft.case(
        source,
        target,
        lambda m: params.MatmulParams(experts, active, m["indexes"] if active else None),
        **weight,
    )


def _positions(draft: Draft, seq_len: int) -> Values:
    """Draw positions: usually of one run of tokens, sometimes of any."""
    if draft.chance() or draft.batch_size > seq_len:
        return draft.whole(1, draft.batch_size, 1, below=seq_len)
    first = draft.between(0, seq_len - draft.batch_size)
    return np.arange(first, first + draft.batch_size, dtype=np.float32).reshape(1, -1, 1)


def _rope(draft: Draft) -> OpCase:
    kind = list(RopeType)[draft.seed % len(RopeType)]
    is_q, nodes = draft.chance(), draft.between(1, 4)
    node, seq_len, head_dim = draft.between(0, nodes - 1), draft.between(1, 40), 2 * draft.between(1, 24)
    kv_dim0 = head_dim * draft.between(1, 3)
    q_dim0 = kv_dim0 * draft.between(1, 3)
    falcon = kind is RopeType.FALCON
    start, end = kv_dim0 * node, q_dim0 * (node + 1)
    factor = 8.0 if kind is RopeType.LLAMA3_1 else 1.0
    source = draft.input(q_dim0 if is_q else kv_dim0, in_place=True)
    draft.params_rows("positions", _positions(draft, seq_len))
    draft.buffer("cache", np.zeros((1, seq_len, head_dim if falcon else end - start), np.float32))

    def make(memories: Mapping[str, Tensor]) -> params.RopeParams:
        return params.RopeParams(
            type=kind,
            is_q=is_q,
            positions=memories["positions"],
            cache=memories["cache"],
            scaling_factor=factor,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            orig_max_seq_len=32,
            q_dim0=q_dim0,
            kv_dim0=kv_dim0,
            kv_dim_start=0 if falcon else start,
            q_dim_end=0 if falcon else end,
            q_shift=0 if falcon else q_dim0 * node - start,
            slice_dim=0 if falcon else end - start,
            seq_len=seq_len,
            head_dim=head_dim,
            rope_theta=10000.0,
        )

    return draft.case(source, source, make)


def _multihead_att(draft: Draft) -> OpCase:
    seq_len, head_dim, group = draft.between(1, 60), draft.between(1, 40), draft.between(1, 4)
    n_kv_heads = draft.between(1, 4)
    n_heads0 = draft.between(1, n_kv_heads * group)
    n_kv_heads0 = draft.between(-(-n_heads0 // group), n_kv_heads)
    target = draft.output(n_heads0 * head_dim)
    positions = _positions(draft, seq_len)
    draft.params_rows("positions", positions)
    draft.params_rows("query", draft.normal(1, draft.batch_size, n_heads0 * head_dim))
    for name in ("keys", "values"):
        values = draft.normal(1, seq_len, n_kv_heads0 * head_dim)
        values[:, int(positions.max()) + 1 :] = np.nan
        if name == "values" and draft.chance():
            # Rows that come earlier must not even multiply this by zero.
            values[:, int(positions.max())] = np.inf
        draft.buffer(name, values)
    draft.rows("att", x=n_heads0 * seq_len, whole=True, written=True)

    def make(memories: Mapping[str, Tensor]) -> params.MultiHeadAttParams:
        return params.MultiHeadAttParams(
            n_heads=n_kv_heads * group,
            n_heads0=n_heads0,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            seq_len=seq_len,
            kv_dim0=n_kv_heads0 * head_dim,
            positions=memories["positions"],
            query=memories["query"],
            key_cache=memories["keys"],
            value_cache=memories["values"],
            att=memories["att"],
        )

    return draft.case(target, target, make)


def _in_place(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    source = draft.input(x, z=z, values=draft.normal(z, draft.batch_size, x, scale=4.0), in_place=True)
    return draft.case(source, source)


def _mul(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    in_place = draft.chance()
    source = draft.input(x, z=z, in_place=in_place)
    target = source if in_place else draft.output(x, z=z)
    draft.params_rows("multiplier", draft.normal(z, draft.batch_size, x))
    return draft.case(source, target, lambda m: params.MulParams(m["multiplier"]))


def _scale(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width()
    in_place = draft.chance()
    source = draft.input(x, z=z, in_place=in_place)
    target = source if in_place else draft.output(x, z=z)
    draft.params_rows("scale", draft.normal(z, draft.batch_size, 1))
    return draft.case(source, target, lambda m: params.ScaleParams(m["scale"]))


def _cast(draft: Draft) -> OpCase:
    z, x = draft.between(1, 4), draft.width(draft.input_type, draft.output_type)
    return draft.case(draft.input(x, z=z), draft.output(x, z=z))


def _repeat_z(draft: Draft) -> OpCase:
    z, x = draft.between(1, 5), draft.width(draft.output_type)
    return draft.case(draft.input(x), draft.output(x, z=z))


def _shift(draft: Draft) -> OpCase:
    x, seq_len = draft.width(), draft.between(1, 30)
    source = draft.input(x)
    draft.params_rows("indexes", _positions(draft, seq_len))
    draft.buffer("cache", draft.normal(1, seq_len, x))
    return draft.case(source, View("cache", raw=True), lambda m: params.ShiftParams(m["indexes"]))


def _moe_gate(draft: Draft) -> OpCase:
    experts = draft.between(1, 130)
    k, norm = draft.between(1, min(experts, 9)), draft.chance()
    # Distinct values: which of two equal ones comes first is open.
    ranks = np.stack([draft.rng.permutation(experts) for _ in range(draft.batch_size)])
    source = draft.input(experts, values=((ranks + 1) / experts)[None].astype(np.float32))
    target = draft.output(1, z=k)
    draft.rows("indexes", x=k, whole=True, written=True)
    return draft.case(source, target, lambda m: params.MoeGateParams(k, norm, m["indexes"]))


_MAKERS: Mapping[OpCode, Callable[[Draft], OpCase]] = MappingProxyType(
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

#: Where an op finds the indexes that it has to check.
_INDEX_MEMORIES = {
    OpCode.EMBEDDING: "in",
    OpCode.MATMUL: "indexes",
    OpCode.ROPE: "positions",
    OpCode.MULTIHEAD_ATT: "positions",
    OpCode.SHIFT: "indexes",
}


def _index_bound(case: OpCase) -> int:
    """Return the first index out of range."""
    record = case.bind().context.params
    if isinstance(record, params.RopeParams | params.MultiHeadAttParams):
        return record.seq_len
    if case.key.code is OpCode.SHIFT:
        return case.memories["cache"].y
    if case.weight is None:
        raise ValueError(f"{case.name} takes no indexes")
    return case.weight.y if case.key.code is OpCode.EMBEDDING else case.weight.z
