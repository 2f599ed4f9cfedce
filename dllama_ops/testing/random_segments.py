"""Random segments: the ops of half a layer in the order in which a root lays them out, over shared memory.

What single ops can't show is here: results that the next op reads, memory that is used twice, caches that
outlive a forward, batches of different sizes through the same segment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from dllama_ops import params
from dllama_ops.kernel import KernelKey
from dllama_ops.tensor import Tensor, WeightSpec
from dllama_ops.testing._draft import Values, encode
from dllama_ops.testing.cases import Batch, Memory, OpCase, SegmentCase, View
from dllama_proto.enums import FloatType, OpCode, RopeType, op_quant_type

__all__ = ["SEGMENT_KINDS", "SegmentKind", "random_segment"]

#: Halves of a layer: attention, feed-forward, feed-forward with experts.
SegmentKind = Literal["attention", "feed_forward", "experts"]
SEGMENT_KINDS: tuple[SegmentKind, ...] = get_args(SegmentKind)

#: Quantised activations may fall on the other side of a rounding, and then differ by a step of 1/127.
_TOLERANCE = MappingProxyType({FloatType.F32: 1e-4, FloatType.Q80: 0.02})

_SEQ_LEN = 24


def random_segment(kind: SegmentKind, seed: int, *, quantised: bool = True) -> SegmentCase:
    """Return a segment of this kind and seed, with q80 activations and q40 weights or with f32 for both."""
    draft = _SegmentDraft(seed, kind, quantised)
    _MAKERS[kind](draft)
    return draft.case()


class _SegmentDraft:
    """A segment in the making. ``activation`` is the type of what goes into matmuls and over the wire."""

    def __init__(self, seed: int, kind: SegmentKind, quantised: bool) -> None:
        self.rng = np.random.default_rng([seed, SEGMENT_KINDS.index(kind), quantised])
        self.activation, self.weights = (
            (FloatType.Q80, FloatType.Q40) if quantised else (FloatType.F32, FloatType.F32)
        )
        self._name = f"random-{kind.replace('_', '-')}-{'q80' if quantised else 'f32'}-{seed}"
        self.n_batches = int(self.rng.integers(3, 9))
        self.dim = 32 * int(self.rng.integers(1, 4))
        self.n_nodes = int(self.rng.integers(1, 3))
        self.node = int(self.rng.integers(0, self.n_nodes))
        self.memories: dict[str, Memory] = {}
        self._ops: list[OpCase] = []
        self._scratch: set[str] = set()
        self._inputs: list[str] = []

    def memory(
        self, name: str, x: int, *, z: int = 1, float_type: FloatType = FloatType.F32, scratch: bool = False
    ) -> None:
        """Add a memory with a row for each place of the batch, with any numbers in it."""
        values = self._normal(z, self.n_batches, x)
        self.memories[name] = Memory(float_type, z, self.n_batches, x, encode(float_type, values).tobytes())
        if scratch:
            self._scratch.add(name)

    def input(self, name: str, x: int, float_type: FloatType = FloatType.F32) -> None:
        """Add a memory that is written anew before each forward."""
        self.memory(name, x, float_type=float_type)
        self._inputs.append(name)

    def rows(self, name: str, y: int, x: int) -> None:
        """Add a memory of rows by position, which no op may read before it is written."""
        contents = np.full((1, y, x), np.nan, np.float32).tobytes()
        self.memories[name] = Memory(FloatType.F32, 1, y, x, contents)

    def op(
        self,
        code: OpCode,
        source: str | View,
        target: str | View,
        make_params: Callable[[Mapping[str, Tensor]], params.OpParams] = lambda memories: params.NoParams(),
        *,
        weight: WeightSpec | None = None,
    ) -> None:
        """Append an op; its weight gets random values."""
        source, target = _view(source), _view(target)
        weight_type = weight.float_type if weight else FloatType.UNK
        types = (
            self.memories[source.memory].float_type,
            weight_type,
            self.memories[target.memory].float_type,
        )
        quant = op_quant_type(*types)
        if quant is None:
            raise ValueError(f"no op has the types {types}")
        data = b""
        if weight is not None:
            values = self._normal(weight.z * weight.y * weight.x) / np.float32(sqrt(weight.y))
            data = encode(weight.float_type, values).tobytes()
        self._ops.append(
            OpCase(
                name=f"{self._name}-op-{len(self._ops)}",
                key=KernelKey(code, quant),
                n_batches=self.n_batches,
                batch_size=self.n_batches,
                memories=self.memories,
                input=source,
                output=target,
                params=make_params,
                weight=weight,
                weight_bytes=data,
            )
        )

    def begin(self) -> None:
        """Append what every half layer begins with: the partial sums of all nodes, and the norm."""
        self.input("sums", self.n_nodes * self.dim, self.activation)
        self.input("x", self.dim)
        self.memory("inv_rms", 1)
        self.memory("y", self.dim)
        self.memory("yq", self.dim, float_type=self.activation)
        self.op(OpCode.MERGE_ADD, "sums", "x")
        self.op(OpCode.INV_RMS, "x", "inv_rms", lambda m: params.InvRmsParams(1e-5, 1))
        norm = WeightSpec(FloatType.F32, 1, 1, self.dim)
        self.op(OpCode.RMS_NORM, "x", "y", lambda m: params.RmsNormParams(1, m["inv_rms"]), weight=norm)

    def matmul(self, source: str, target: str, n: int, d: int, experts: int = 0, active: int = 0) -> None:
        """Append a product with weights of the segment's type."""

        def make(memories: Mapping[str, Tensor]) -> params.MatmulParams:
            return params.MatmulParams(experts, active, memories["indexes"] if active else None)

        spec = WeightSpec(self.weights, max(experts, 1), n, d)
        self.op(OpCode.MATMUL, source, target, make, weight=spec)

    def end(self) -> None:
        """Append what every half layer ends with: this node's own partial sums."""
        self.op(OpCode.CAST, "y", View("sums", (self.dim * self.node, self.dim * (self.node + 1))))

    def case(self) -> SegmentCase:
        """Finish the case: a prompt, single tokens, a full batch, and back to an earlier position."""
        batches = [
            self._batch(size, first)
            for size, first in (
                (self.n_batches - 1, 0),
                (1, self.n_batches - 1),
                (1, self.n_batches),
                (self.n_batches, self.n_batches + 1),
                (2, 1),
            )
        ]
        has_positions = "positions" in self.memories
        return SegmentCase(
            name=self._name,
            memories=self.memories,
            ops=tuple(self._ops),
            batches=tuple(batches),
            bad=self._batch(2, _SEQ_LEN - 1) if has_positions else None,
            scratch=frozenset(self._scratch),
            relative=_TOLERANCE[self.activation],
        )

    def _batch(self, size: int, first: int) -> Batch:
        contents = {}
        for name in self._inputs:
            memory = self.memories[name]
            values = self._normal(1, self.n_batches, memory.x)
            if name == "positions":
                values[0, :, 0] = np.nan
                values[0, :size, 0] = np.arange(first, first + size)
            contents[name] = encode(memory.float_type, values).tobytes()
        return Batch(size, contents)

    def _normal(self, *shape: int) -> Values:
        return self.rng.standard_normal(shape).astype(np.float32)


def _view(place: str | View) -> View:
    return place if isinstance(place, View) else View(place)


def _attention(draft: _SegmentDraft) -> None:
    head_dim = 32 if draft.activation is FloatType.Q80 else 2 * int(draft.rng.integers(1, 20))
    n_kv_heads, group = int(draft.rng.integers(1, 3)), int(draft.rng.integers(1, 4))
    q_dim, kv_dim = n_kv_heads * group * head_dim, n_kv_heads * head_dim
    draft.begin()
    draft.input("positions", 1)
    for name, x in (("q", q_dim), ("k", kv_dim), ("v", kv_dim), ("z", q_dim)):
        draft.memory(name, x)
    draft.memory("zq", q_dim, float_type=draft.activation)
    draft.memory("att", n_kv_heads * group * _SEQ_LEN, scratch=True)
    draft.rows("rope_cache", _SEQ_LEN, q_dim)
    draft.rows("keys", _SEQ_LEN, kv_dim)
    draft.rows("values", _SEQ_LEN, kv_dim)
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
            seq_len=_SEQ_LEN,
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
            seq_len=_SEQ_LEN,
            head_dim=head_dim,
            rope_theta=10000.0,
        )

    return make


def _feed_forward(draft: _SegmentDraft) -> None:
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


def _experts(draft: _SegmentDraft) -> None:
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


_MAKERS: Mapping[SegmentKind, Callable[[_SegmentDraft], None]] = MappingProxyType(
    {"attention": _attention, "feed_forward": _feed_forward, "experts": _experts}
)
