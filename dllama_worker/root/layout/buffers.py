"""A node's buffers: their order, widths and names."""

from __future__ import annotations

from dataclasses import dataclass, fields

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


@dataclass(frozen=True, slots=True)
class Buffers:
    """Configs in order, and the indexes: of a node's shared buffers, and of the caches of each layer."""

    configs: tuple[BufferConfig, ...]
    at: BufferIndexes
    k_caches: tuple[int, ...]
    v_caches: tuple[int, ...]


def lay_buffers(shape: NodeShape) -> Buffers:
    """Lay out the buffers of a node.

    What ops see through a *batched slice* (only ``z``) is so wide that a node's slice, width / n_nodes at
    its index, has the width of its own heads.
    """
    header = shape.header
    n_active = max(header.n_active_experts, 1)
    norm_columns = max(shape.n_heads0, len(shape.share.kv_heads), 1) if header.has_qk_norm else 1
    rows, sync = shape.rows, shape.sync_type
    sizes: dict[str, tuple[str, Size3D]] = {
        "x": ("x", rows(header.dim)),
        "y": ("y", rows(header.dim)),
        "yq": ("q_y", rows(header.dim, float_type=sync)),
        "z": ("z", rows(shape.q_dim0 * shape.n_nodes)),
        "zq_slice": ("q_z_slice", rows(shape.q_dim0, float_type=sync)),
        "q": ("q", rows(shape.q_dim0)),
        "k_temp": ("k_temp", rows(shape.kv_dim0)),
        "v_temp": ("v_temp", rows(shape.kv_dim0)),
        "inv_rms": ("inv_rms", rows(norm_columns)),
        "rope_cache": ("rope_cache", shape.rope_slice().cache_size),
        "att": ("att", rows(shape.n_heads0 * header.seq_len)),
        "logits": ("lg", rows(shape.vocab0)),
        "d": ("d", rows(shape.ff_dim0)),
        "dq": ("q_d", rows(shape.ff_dim0, float_type=sync)),
        "l": ("l", rows(shape.ff_dim0)),
        "gate": ("gt", rows(max(header.n_experts, 1))),
        "active_expert_indexes": ("act_exp_ix", rows(n_active)),
        "moe_y": ("moe_y", rows(header.dim, z=n_active)),
        "moe_yq": ("q_moe_y", rows(header.dim, z=n_active, float_type=sync)),
        "moe_d": ("moe_d", rows(shape.ff_dim0, z=n_active)),
        "moe_dq": ("q_moe_d", rows(shape.ff_dim0, z=n_active, float_type=sync)),
        "moe_l": ("moe_l", rows(shape.ff_dim0, z=n_active)),
        "moe_scale": ("moe_s", rows(1, z=n_active)),
    }
    twins = {"yq": "y", "dq": "d", "moe_yq": "moe_y", "moe_dq": "moe_d"}
    configs: list[BufferConfig] = []
    at: dict[str, int] = {}
    for field in fields(BufferIndexes):
        if not shape.is_quantized and field.name in twins:
            at[field.name] = at[twins[field.name]]
            continue
        name, size = sizes[field.name]
        if size.x == 0:
            at[field.name] = _ABSENT
            continue
        at[field.name] = len(configs)
        configs.append(BufferConfig(size, name))
    first_cache = len(configs)
    if shape.n_heads0:
        cache = Size3D.of(FloatType.F32, y=header.seq_len, x=shape.kv_dim0)
        configs += [BufferConfig(cache, name) for _ in range(header.n_layers) for name in ("k", "v")]
    return Buffers(
        configs=tuple(configs),
        at=BufferIndexes(**at),
        k_caches=tuple(range(first_cache, len(configs), 2)),
        v_caches=tuple(range(first_cache + 1, len(configs), 2)),
    )
