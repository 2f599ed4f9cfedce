"""Attention over the key and value caches: MULTIHEAD_ATT."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch

from dllama_ops import BaseKernel, OpContext
from dllama_ops.params import MultiHeadAttParams
from dllama_ops_torch.cache import Cache, CopiedCache, HostCache
from dllama_ops_torch.memory import checked_indexes, use_threads, view_of

__all__ = ["TorchMultiHeadAtt", "attend"]


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor | None
) -> torch.Tensor:
    """Return softmax(q · keys / √d) · values: q (b, kv_heads, group, d), keys and values (t, kv_heads, d).

    ``hidden`` (b, t) says which positions a row does not see. The ``group`` query heads of a KV head go
    through one product, with all rows.
    """
    b, kv_heads, group, d = query.shape
    q = query.transpose(0, 1).reshape(kv_heads, b * group, d)
    scores = (q @ keys.permute(1, 2, 0)) / sqrt(d)
    if hidden is not None:
        scores.view(kv_heads, b, group, -1).masked_fill_(hidden[:, None], float("-inf"))
    out = torch.softmax(scores, dim=-1) @ values.transpose(0, 1)
    return out.view(kv_heads, b, group, d).transpose(0, 1)


class TorchMultiHeadAtt(BaseKernel):
    """MULTIHEAD_ATT F32_F32_F32. ``copied`` keeps a copy of the caches even on the CPU (for tests)."""

    def __init__(self, context: OpContext, device: torch.device, *, copied: bool | None = None) -> None:
        super().__init__(context)
        if not isinstance(context.params, MultiHeadAttParams):
            raise TypeError(f"expected MultiHeadAttParams for {context.key}, got {context.params}")
        self._params, self._device = context.params, device
        copied = device.type != "cpu" if copied is None else copied
        heads = -1, context.params.head_dim
        self._output = torch.unflatten(view_of(context.output)[0], -1, heads)
        self._query = torch.unflatten(view_of(context.params.query)[0], -1, heads)
        self._keys, self._values = (
            _cache(torch.unflatten(view_of(tensor)[0], -1, heads), device, copied)
            for tensor in (context.params.key_cache, context.params.value_cache)
        )

    def forward(self, batch_size: int) -> None:
        """Attend with every row and head. Raises KernelDataError."""
        params = self._params
        use_threads(self.context.n_threads)
        positions = checked_indexes(
            self.context, "positions", params.positions, batch_size, params.seq_len
        )[:, 0]
        query = self._query[:batch_size].to(self._device)
        keys, values = self._keys.rows(positions), self._values.rows(positions)
        out = self._output[:batch_size]
        hidden = torch.from_numpy(np.arange(len(keys)) > positions[:, None]).to(self._device)
        out.copy_(self._heads(query, keys, values, hidden if batch_size > 1 else None))
        if batch_size > 1 and not out.isfinite().all():
            # What a row does not see has the weight 0, but 0 times infinity is NaN: then, and only then,
            # each row has to be computed over its own positions.
            for row, position in enumerate(positions.tolist()):
                own = slice(row, row + 1), slice(0, position + 1)
                out[own[0]].copy_(self._heads(query[own[0]], keys[own[1]], values[own[1]], None))

    def _heads(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend in whole groups of heads, then with the heads of a KV head of which only some are here."""
        group = self._params.n_heads // self._params.n_kv_heads
        n_whole, n_rest = divmod(self._params.n_heads0, group)
        cut = n_whole * group
        parts = []
        if n_whole:
            q = torch.unflatten(query[:, :cut], 1, (n_whole, group))
            parts.append(attend(q, keys[:, :n_whole], values[:, :n_whole], hidden).flatten(1, 2))
        if n_rest:
            kv_head = slice(n_whole, n_whole + 1)
            parts.append(attend(query[:, None, cut:], keys[:, kv_head], values[:, kv_head], hidden)[:, 0])
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _cache(memory: torch.Tensor, device: torch.device, copied: bool) -> Cache:
    return CopiedCache(memory, device) if copied else HostCache(memory)
