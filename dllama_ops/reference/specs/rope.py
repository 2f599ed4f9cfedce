"""ROPE: rotary position embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dllama_ops import params
from dllama_ops.checker import Checker, shape_of
from dllama_ops.kernel import OpContext
from dllama_ops.op_spec import IndexData, OpSpec, Written
from dllama_ops.reference import rope
from dllama_ops.reference._kernel import params_of
from dllama_ops.tensor import Tensor
from dllama_ops.tolerance import ANGLES
from dllama_proto.enums import OpCode, OpQuantType, RopeType

if TYPE_CHECKING:
    from dllama_ops.cases.case import OpCase
    from dllama_ops.cases.draft import Draft

__all__ = ["SPECS"]

_F32 = OpQuantType.F32_F32_F32


def _check_rope(check: Checker) -> None:
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
        _check_rope_slice(check)
        cache_x = config.slice_dim
    if check.f32("cache", config.cache, y=config.seq_len, x=cache_x, whole=True, writable=True):
        check.apart("cache", config.cache)
        check.disjoint("cache", config.cache, "positions", config.positions)


def _check_rope_slice(check: Checker) -> None:
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


def _draw_rope(draft: Draft) -> OpCase:
    kind = list(RopeType)[draft.seed % len(RopeType)]
    is_q, nodes = draft.chance(), draft.between(1, 4)
    node, seq_len, head_dim = draft.between(0, nodes - 1), draft.between(1, 40), 2 * draft.between(1, 24)
    kv_dim0 = head_dim * draft.between(1, 3)
    q_dim0 = kv_dim0 * draft.between(1, 3)
    falcon = kind is RopeType.FALCON
    start, end = kv_dim0 * node, q_dim0 * (node + 1)
    factor = 8.0 if kind is RopeType.LLAMA3_1 else 1.0
    source = draft.input(q_dim0 if is_q else kv_dim0, in_place=True)
    draft.params_rows("positions", draft.positions(seq_len))
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


def _seq_len(case: OpCase) -> int:
    return case.memories["cache"].y


def _cache(context: OpContext, batch_size: int) -> Iterator[Written]:
    """Yield the cache, which a kernel fills when it is made."""
    yield Written("cache", params_of(context, params.RopeParams).cache.data, ANGLES)


SPECS = (
    OpSpec(
        OpCode.ROPE,
        reference={_F32: rope.Rope},
        params=params.RopeParams,
        check=_check_rope,
        tolerance=ANGLES,
        draw=_draw_rope,
        indexes=IndexData("positions", _seq_len),
        also_writes=_cache,
    ),
)
