"""Matrices that are stored as one, below each other: where the rows of each begin, and how many there are."""

from __future__ import annotations

from dllama_proto.model_file import TensorEntry
from dllama_proto.names import WeightName
from dllama_worker.model.description import ModelDescription

__all__ = ["rows_in_fused"]


def rows_in_fused(entry: TensorEntry, description: ModelDescription) -> tuple[int, int]:
    """Return the first row of a matrix in that of its family's, and the number of rows of all in it."""
    head_dim = description.head_dim or description.dim // description.n_heads
    q_dim, kv_dim = head_dim * description.n_heads, head_dim * description.n_kv_heads
    for parts in (
        ((WeightName.Q, q_dim), (WeightName.K, kv_dim), (WeightName.V, kv_dim)),
        ((WeightName.W1, description.hidden_dim), (WeightName.W3, description.hidden_dim)),
    ):
        starts = {name: sum(rows for _, rows in parts[:i]) for i, (name, _) in enumerate(parts)}
        if entry.name in starts:
            return starts[entry.name], sum(rows for _, rows in parts)
    return 0, entry.d
