"""Random segments: the ops of half a layer in the order in which a root lays them out, over shared memory.

What single ops can't show is here: results that the next op reads, memory that is used twice, caches that
outlive a forward, batches of different sizes through the same segment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from dllama_ops import params
from dllama_ops.cases.case import SegmentCase, View
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_ops.testing._segment_draft import SEQ_LEN, SegmentDraft
from dllama_proto.enums import FloatType, OpCode, RopeType

__all__ = ["SEGMENT_KINDS", "SegmentKind", "random_segment"]

#: Halves of a layer: attention, feed-forward, feed-forward with experts.
SegmentKind = Literal["attention", "feed_forward", "experts"]
SEGMENT_KINDS: tuple[SegmentKind, ...] = get_args(SegmentKind)


def random_segment(kind: SegmentKind, seed: int, *, quantised: bool = True) -> SegmentCase:
    """Return a segment of this kind and seed, with q80 activations and q40 weights or with f32 for both."""
    name = f"random-{kind.replace('_', '-')}-{'q80' if quantised else 'f32'}-{seed}"
    rng = np.random.default_rng([seed, SEGMENT_KINDS.index(kind), quantised])
    draft = SegmentDraft(name, rng, quantised)
    _MAKERS[kind](draft)
    return draft.case()


def _attention(draft: SegmentDraft) -> None:
    head_dim = 32 if draft.activation is FloatType.Q80 else 2 * int(draft.rng.integers(1, 20))
    n_kv_heads, group = int(draft.rng.integers(1, 3)), int(draft.rng.integers(1, 4))
    q_dim, kv_dim = n_kv_heads * group * head_dim, n_kv_heads * head_dim
    draft.begin()
    draft.input("positions", 1)
    for name, x in (("q", q_dim), ("k", kv_dim), ("v", kv_dim), ("z", q_dim)):
        draft.memory(name, x)
    draft.memory("zq", q_dim, float_type=draft.activation)
    draft.memory("att", n_kv_heads * group * SEQ_LEN, scratch=True)
    draft.rows("rope_cache", SEQ_LEN, q_dim)
    draft.rows("keys", SEQ_LEN, kv_dim)
    draft.rows("values", SEQ_LEN, kv_dim)
    draft.op(OpCode.CAST, "y", "yq")
    for name, d in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
        draft.matmul("yq", name, draft.dim, d)
    for name, is_q in (("q", True), ("k", False)):
        draft.op(OpCode.ROPE, name, name, _rope(is_q, q_dim, kv_dim, head_dim))
    for name, cache in (("k", "keys"), ("v", "values")):
        shift = View(cache, raw=True)
        draft.op(OpCode.SHIFT, name, shift, lambda m: params.ShiftParams(m["positions"]))

    def attend(memories: Mapping[str, Tensor]) -> params.MultiHeadAttParams:
        return params.MultiHeadAttParams(
            n_heads=n_kv_heads * group,
            n_heads0=n_kv_heads * group,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            seq_len=SEQ_LEN,
            kv_dim0=kv_dim,
            positions=memories["positions"],
            query=memories["q"],
            key_cache=memories["keys"],
            value_cache=memories["values"],
            att=memories["att"],
        )

    draft.op(OpCode.MULTIHEAD_ATT, "z", "z", attend)
    draft.op(OpCode.CAST, "z", "zq")
    draft.matmul("zq", "y", q_dim, draft.dim)
    draft.end()


def _rope(
    is_q: bool, q_dim: int, kv_dim: int, head_dim: int
) -> Callable[[Mapping[str, Tensor]], params.RopeParams]:
    def make(memories: Mapping[str, Tensor]) -> params.RopeParams:
        return params.RopeParams(
            type=RopeType.LLAMA,
            is_q=is_q,
            positions=memories["positions"],
            cache=memories["rope_cache"],
            scaling_factor=1.0,
            low_freq_factor=0.0,
            high_freq_factor=0.0,
            orig_max_seq_len=0,
            q_dim0=q_dim,
            kv_dim0=kv_dim,
            kv_dim_start=0,
            q_dim_end=q_dim,
            q_shift=0,
            slice_dim=q_dim,
            seq_len=SEQ_LEN,
            head_dim=head_dim,
            rope_theta=10000.0,
        )

    return make


def _feed_forward(draft: SegmentDraft) -> None:
    hidden = 32 * int(draft.rng.integers(1, 5))
    draft.begin()
    draft.memory("d", hidden)
    draft.memory("l", hidden)
    draft.memory("dq", hidden, float_type=draft.activation)
    draft.op(OpCode.CAST, "y", "yq")
    draft.matmul("yq", "d", draft.dim, hidden)
    draft.matmul("yq", "l", draft.dim, hidden)
    draft.op(OpCode.SILU, "d", "d")
    draft.op(OpCode.MUL, "d", "d", lambda m: params.MulParams(m["l"]))
    draft.op(OpCode.CAST, "d", "dq")
    draft.matmul("dq", "y", hidden, draft.dim)
    draft.end()


def _experts(draft: SegmentDraft) -> None:
    hidden, experts = 32 * int(draft.rng.integers(1, 4)), int(draft.rng.integers(2, 9))
    active = int(draft.rng.integers(1, min(experts, 4)))
    draft.begin()
    draft.memory("gate", experts)
    draft.memory("indexes", active)
    draft.memory("scale", 1, z=active)
    for name, x, float_type in (
        ("moe_yq", draft.dim, draft.activation),
        ("moe_d", hidden, FloatType.F32),
        ("moe_l", hidden, FloatType.F32),
        ("moe_dq", hidden, draft.activation),
        ("moe_y", draft.dim, FloatType.F32),
    ):
        draft.memory(name, x, z=active, float_type=float_type)
    draft.op(OpCode.REPEAT_Z, "y", "moe_yq")
    gate = WeightSpec(FloatType.F32, 1, draft.dim, experts)
    draft.op(OpCode.MATMUL, "y", "gate", lambda m: params.MatmulParams(0, 0, None), weight=gate)
    draft.op(OpCode.SOFTMAX, "gate", "gate")
    choose = lambda m: params.MoeGateParams(active, True, m["indexes"])  # noqa: E731
    draft.op(OpCode.MOE_GATE, "gate", "scale", choose)
    draft.matmul("moe_yq", "moe_d", draft.dim, hidden, experts, active)
    draft.matmul("moe_yq", "moe_l", draft.dim, hidden, experts, active)
    draft.op(OpCode.SILU, "moe_d", "moe_d")
    draft.op(OpCode.MUL, "moe_d", "moe_d", lambda m: params.MulParams(m["moe_l"]))
    draft.op(OpCode.CAST, "moe_d", "moe_dq")
    draft.matmul("moe_dq", "moe_y", hidden, draft.dim, experts, active)
    draft.op(OpCode.SCALE, "moe_y", "moe_y", lambda m: params.ScaleParams(m["scale"]))
    draft.op(OpCode.MERGE_SUM, "moe_y", "y")
    draft.end()


_MAKERS: Mapping[SegmentKind, Callable[[SegmentDraft], None]] = MappingProxyType(
    {"attention": _attention, "feed_forward": _feed_forward, "experts": _experts}
)
