"""What each op needs beside its input, output and weight, with every index already resolved to memory.

One record per op code that needs one; the worker's binding fills them from the wire's configs. Fields keep
the wire's names; where the wire has the index of a pipe or buffer (``scale_buffer``), these have its
:class:`Tensor` (``scale``), None where it means nothing. A ``bool`` is a number on the wire, 1 for true.
"""

from __future__ import annotations

from dataclasses import dataclass

from dllama_ops.tensor import Tensor
from dllama_proto.enums import RopeType

__all__ = [
    "InvRmsParams",
    "MatmulParams",
    "MoeGateParams",
    "MulParams",
    "MultiHeadAttParams",
    "NoParams",
    "OpParams",
    "RmsNormParams",
    "RopeParams",
    "ScaleParams",
    "ShiftParams",
]


@dataclass(frozen=True, slots=True, eq=False)
class NoParams:
    """MERGE_ADD, MERGE_SUM, EMBEDDING, GELU, SILU, CAST, REPEAT_Z, SOFTMAX."""


@dataclass(frozen=True, slots=True, eq=False)
class InvRmsParams:
    """INV_RMS: one result for each of ``n_columns`` equal groups of a row."""

    epsilon: float
    n_columns: int


@dataclass(frozen=True, slots=True, eq=False)
class RmsNormParams:
    """RMS_NORM: ``inv_rms`` is F32 [1][n_batches][>= n_columns]."""

    n_columns: int
    inv_rms: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MatmulParams:
    """MATMUL: ``active_expert_indexes`` is F32 [1][n_batches][n_active_experts], None without experts."""

    n_experts: int
    n_active_experts: int
    active_expert_indexes: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class RopeParams:
    """ROPE: ``positions`` is F32 [1][n_batches][1].

    ``cache`` is F32 [1][seq_len][width]: width is ``slice_dim`` (LLAMA, LLAMA3_1) or ``head_dim`` (FALCON).
    The kernel fills it when it is bound; ops of all layers share one. ``kv_dim_start``, ``q_dim_end``,
    ``q_shift`` and ``slice_dim`` are 0 with FALCON.
    """

    type: RopeType
    is_q: bool
    positions: Tensor
    cache: Tensor
    scaling_factor: float
    low_freq_factor: float
    high_freq_factor: float
    orig_max_seq_len: int
    q_dim0: int
    kv_dim0: int
    kv_dim_start: int
    q_dim_end: int
    q_shift: int
    slice_dim: int
    seq_len: int
    head_dim: int
    rope_theta: float


@dataclass(frozen=True, slots=True, eq=False)
class MultiHeadAttParams:
    """MULTIHEAD_ATT over this node's ``n_heads0`` query heads.

    ``query`` is F32 [1][n_batches][n_heads0 * head_dim], the caches F32 [1][seq_len][kv_dim0], ``att``
    scratch for scores, F32 [1][n_batches][n_heads0 * seq_len], ``positions`` F32 [1][n_batches][1]. Local
    head h attends with local KV head h / (n_heads / n_kv_heads).
    """

    n_heads: int
    n_heads0: int
    n_kv_heads: int
    head_dim: int
    seq_len: int
    kv_dim0: int
    positions: Tensor
    query: Tensor
    key_cache: Tensor
    value_cache: Tensor
    att: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MulParams:
    """MUL: ``multiplier`` is F32 [z][n_batches][x], as the output."""

    multiplier: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ScaleParams:
    """SCALE: ``scale`` is F32 [z][n_batches][1]."""

    scale: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ShiftParams:
    """SHIFT: ``indexes`` is F32 [1][n_batches][1], the cache row of each row."""

    indexes: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MoeGateParams:
    """MOE_GATE: writes the best k expert numbers into ``indexes``, F32 [1][n_batches][k]."""

    k: int
    norm_topk: bool
    indexes: Tensor


#: The params of the C++ program's ops; other ops bring records of their own.
OpParams = (
    NoParams
    | InvRmsParams
    | RmsNormParams
    | MatmulParams
    | RopeParams
    | MultiHeadAttParams
    | MulParams
    | ScaleParams
    | ShiftParams
    | MoeGateParams
)
