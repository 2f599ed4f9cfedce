"""MULTIHEAD_ATT: attention over the key and value caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dllama_ops import params
from dllama_ops.checker import Checker
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import IndexData, OpSpec, Written
from dllama_ops.reference import attention
from dllama_ops.reference._kernel import params_of
from dllama_ops.tensor import Tensor
from dllama_ops.tolerance import EXPONENTIALS
from dllama_proto.enums import OpCode, OpQuantType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_multihead_att(check: Checker) -> None:
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
    _check_heads(check)
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


def _check_heads(check: Checker) -> None:
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


def _draw_multihead_att(draft: Draft) -> OpCase:
    seq_len, head_dim, group = draft.between(1, 60), draft.between(1, 40), draft.between(1, 4)
    n_kv_heads = draft.between(1, 4)
    n_heads0 = draft.between(1, n_kv_heads * group)
    n_kv_heads0 = draft.between(-(-n_heads0 // group), n_kv_heads)
    target = draft.output(n_heads0 * head_dim)
    positions = draft.positions(seq_len)
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


def _seq_len(case: OpCase) -> int:
    return case.memories["keys"].y


def _scores(context: OpContext, batch_size: int) -> Iterator[Written]:
    """Yield the memory for scores: what it holds afterwards is open."""
    yield Written("att", params_of(context, params.MultiHeadAttParams).att.data[:, :batch_size], None)


SPECS = (
    OpSpec(
        OpCode.MULTIHEAD_ATT,
        reference={_F32: attention.MultiHeadAtt},
        params=params.MultiHeadAttParams,
        check=_check_multihead_att,
        tolerance=EXPONENTIALS,
        draw=_draw_multihead_att,
        indexes=IndexData("positions", _seq_len),
        also_writes=_scores,
    ),
)
