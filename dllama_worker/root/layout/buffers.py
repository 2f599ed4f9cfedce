"""A node's buffers: their order, widths and names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dllama_proto.enums import FloatType
from dllama_proto.messages import BufferConfig, Size3D
from dllama_worker.root.layout.shape import NodeShape

__all__ = ["BufferIndexes", "Buffers", "lay_buffers"]

_ABSENT = -1


@dataclass(frozen=True, slots=True)
class BufferIndexes:
    """Where each buffer is. Those that are quantised twins are the plain ones again with F32 sync.

    What a node has no use for, because it holds no heads or no feed-forward columns, it does not have; the
    index is then one that cannot be sent.
    """

    x: int
    y: int
    yq: int
    z: int
    zq_slice: int
    q: int
    k_temp: int
    v_temp: int
    inv_rms: int
    rope_cache: int
    att: int
    logits: int
    d: int
    dq: int
    l: int  # noqa: E741 (its name on the wire)
    gate: int
    active_expert_indexes: int
    moe_y: int
    moe_yq: int
    moe_d: int
    moe_dq: int
    moe_l: int
    moe_scale: int
    bias_q: int
    bias_kv: int


@dataclass(frozen=True, slots=True)
class Buffers:
    """Configs in order, and the indexes: of a node's shared buffers, and of the caches of each layer."""

    configs: tuple[BufferConfig, ...]
    at: BufferIndexes
    k_caches: tuple[int, ...]
    v_caches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Buffer:
    """One buffer: its ``name`` on the wire and its size on a node of some shape.

    ``twin_of`` is the buffer of which this is the quantised twin: with F32 sync both are that one.
    """

    name: str
    size: Callable[[NodeShape], Size3D]
    twin_of: str = ""


def _n_active(shape: NodeShape) -> int:
    """Experts that a row goes to; a model without any counts as having one."""
    return max(shape.header.n_active_experts, 1)


def _norm_columns(shape: NodeShape) -> int:
    """Root mean squares that are kept for a row: one a head, where heads are normed, or one."""
    return max(shape.n_heads0, len(shape.share.kv_heads), 1) if shape.header.has_qk_norm else 1


def _dim(shape: NodeShape, *, z: int = 1, quantized: bool = False) -> Size3D:
    """Size of rows as wide as the model."""
    return shape.rows(shape.header.dim, z=z, float_type=shape.sync_type if quantized else FloatType.F32)


def _hidden(shape: NodeShape, *, z: int = 1, quantized: bool = False) -> Size3D:
    """Size of rows as wide as the node's feed-forward columns."""
    return shape.rows(shape.ff_dim0, z=z, float_type=shape.sync_type if quantized else FloatType.F32)


#: Every buffer but the caches, in the order of the wire. What ops see through a *batched slice* (only ``z``) is so
#: wide that a node's slice, width / n_nodes at its index, has the width of its own heads.
_BUFFERS: Mapping[str, _Buffer] = MappingProxyType(
    {
        "x": _Buffer("x", _dim),
        "y": _Buffer("y", _dim),
        "yq": _Buffer("q_y", lambda shape: _dim(shape, quantized=True), twin_of="y"),
        "z": _Buffer("z", lambda shape: shape.rows(shape.q_dim0 * shape.n_nodes)),
        "zq_slice": _Buffer(
            "q_z_slice", lambda shape: shape.rows(shape.q_dim0, float_type=shape.sync_type)
        ),
        "q": _Buffer("q", lambda shape: shape.rows(shape.q_dim0)),
        "k_temp": _Buffer("k_temp", lambda shape: shape.rows(shape.kv_dim0)),
        "v_temp": _Buffer("v_temp", lambda shape: shape.rows(shape.kv_dim0)),
        "inv_rms": _Buffer("inv_rms", lambda shape: shape.rows(_norm_columns(shape))),
        "rope_cache": _Buffer("rope_cache", lambda shape: shape.rope_slice().cache_size),
        "att": _Buffer("att", lambda shape: shape.rows(shape.n_heads0 * shape.header.seq_len)),
        "logits": _Buffer("lg", lambda shape: shape.rows(shape.vocab0)),
        "d": _Buffer("d", _hidden),
        "dq": _Buffer("q_d", lambda shape: _hidden(shape, quantized=True), twin_of="d"),
        "l": _Buffer("l", _hidden),
        "gate": _Buffer("gt", lambda shape: shape.rows(max(shape.header.n_experts, 1))),
        "active_expert_indexes": _Buffer("act_exp_ix", lambda shape: shape.rows(_n_active(shape))),
        "moe_y": _Buffer("moe_y", lambda shape: _dim(shape, z=_n_active(shape))),
        "moe_yq": _Buffer(
            "q_moe_y", lambda shape: _dim(shape, z=_n_active(shape), quantized=True), twin_of="moe_y"
        ),
        "moe_d": _Buffer("moe_d", lambda shape: _hidden(shape, z=_n_active(shape))),
        "moe_dq": _Buffer(
            "q_moe_d", lambda shape: _hidden(shape, z=_n_active(shape), quantized=True), twin_of="moe_d"
        ),
        "moe_l": _Buffer("moe_l", lambda shape: _hidden(shape, z=_n_active(shape))),
        "moe_scale": _Buffer("moe_s", lambda shape: shape.rows(1, z=_n_active(shape))),
        "bias_q": _Buffer("bias_q", lambda shape: shape.rows(shape.q_dim0 * shape.header.has_qkv_bias)),
        "bias_kv": _Buffer("bias_kv", lambda shape: shape.rows(shape.kv_dim0 * shape.header.has_qkv_bias)),
    }
)


def lay_buffers(shape: NodeShape) -> Buffers:
    """Lay out the buffers of a node: those of its ops, then the caches of each layer."""
    configs: list[BufferConfig] = []
    at: dict[str, int] = {}
    for key, buffer in _BUFFERS.items():
        if buffer.twin_of and not shape.is_quantized:
            at[key] = at[buffer.twin_of]
            continue
        size = buffer.size(shape)
        if size.x == 0:
            at[key] = _ABSENT
            continue
        at[key] = len(configs)
        configs.append(BufferConfig(size, buffer.name))
    first_cache = len(configs)
    configs += _caches(shape)
    return Buffers(
        configs=tuple(configs),
        at=BufferIndexes(**at),
        k_caches=tuple(range(first_cache, len(configs), 2)),
        v_caches=tuple(range(first_cache + 1, len(configs), 2)),
    )


def _caches(shape: NodeShape) -> list[BufferConfig]:
    """Return keys and values of each layer, by turns; none on a node without heads."""
    if not shape.n_heads0:
        return []
    size = Size3D.of(FloatType.F32, y=shape.header.seq_len, x=shape.kv_dim0)
    return [BufferConfig(size, name) for _ in range(shape.header.n_layers) for name in ("k", "v")]
