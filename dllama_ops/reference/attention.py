"""Attention over the key and value caches: MULTIHEAD_ATT."""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from dllama_ops.kernel import OpContext
from dllama_ops.params import MultiHeadAttParams
from dllama_ops.reference._kernel import F32Array, ReferenceKernel, params_of
from dllama_ops.reference.activation import softmax, softmax_bytes

__all__ = ["MultiHeadAtt", "attend"]


def attend(
    out: F32Array,
    q: F32Array,
    keys: F32Array,
    values: F32Array,
    scores: F32Array,
    positions: npt.NDArray[np.intp],
) -> None:
    """``out = softmax(q · keys / √d) · values``, each row over 0..its position. C++ ``multiheadAtt_F32``.

    q (b, kv_heads, group, d), keys and values (t, kv_heads, d), positions (b,), t > the largest position ->
    scores (b, kv_heads, group, t), out as q. ``group`` query heads share a KV head.
    """
    np.matmul(q, keys.transpose(1, 2, 0), out=scores)
    scores /= np.float32(sqrt(q.shape[-1]))
    softmax(scores, (positions + 1)[:, None, None, None])
    np.matmul(scores, values.transpose(1, 0, 2), out=out)


class MultiHeadAtt(ReferenceKernel):
    """MULTIHEAD_ATT F32_F32_F32."""

    def __init__(self, context: OpContext) -> None:
        super().__init__(context)
        self._params = params = params_of(context, MultiHeadAttParams)
        n_batches, head_dim, seq_len = context.n_batches, params.head_dim, params.seq_len
        out = context.output.data[0].reshape(n_batches, -1, head_dim)
        q = params.query.data[0].reshape(n_batches, -1, head_dim)
        keys = params.key_cache.data[0].reshape(seq_len, -1, head_dim)
        values = params.value_cache.data[0].reshape(seq_len, -1, head_dim)
        scores = params.att.data[0].reshape(n_batches, -1, seq_len)
        # Query heads in whole groups, then those of a last KV head that this node has only some heads of.
        group = params.n_heads // params.n_kv_heads
        n_whole, n_rest = divmod(params.n_heads0, group)
        cut = n_whole * group
        self._parts = [
            (
                out[:, heads].reshape(n_batches, -1, size, head_dim),
                q[:, heads].reshape(n_batches, -1, size, head_dim),
                keys[:, kv_heads],
                values[:, kv_heads],
                scores[:, heads].reshape(n_batches, -1, size, seq_len),
            )
            for heads, kv_heads, size in (
                (slice(0, cut), slice(0, n_whole), group),
                (slice(cut, None), slice(n_whole, n_whole + 1), n_rest),
            )
            if size and heads != slice(0, 0)
        ]

    @classmethod
    def passing_bytes(cls, context: OpContext) -> int:
        """Count what the softmax of all scores takes, and the mask of finite results."""
        params = params_of(context, MultiHeadAttParams)
        n_batches, n_heads = context.n_batches, params.n_heads0
        return softmax_bytes(n_batches * n_heads, params.seq_len) + n_batches * n_heads * params.head_dim

    def compute(self, batch_size: int) -> None:
        """Attend with every row and head. Raises KernelDataError."""
        params = self._params
        positions = self.indexes("positions", params.positions, batch_size, params.seq_len)[:, 0]
        self._attend(slice(0, batch_size), positions)
        if batch_size > 1 and not np.isfinite(self.context.output.data[0, :batch_size]).all():
            # What lies after a row's own position has the weight 0, but 0 times infinity is NaN: then, and
            # only then, each row has to be computed over its own positions.
            for row in range(batch_size):
                self._attend(slice(row, row + 1), positions[row : row + 1])

    def _attend(self, rows: slice, positions: npt.NDArray[np.intp]) -> None:
        t = int(positions.max()) + 1
        for out, q, keys, values, scores in self._parts:
            attend(out[rows], q[rows], keys[:t], values[:t], scores[rows, :, :, :t], positions)
