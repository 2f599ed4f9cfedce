"""Which numbers of nodes can share a model evenly: the same share of everything, as the C++ program makes it.

An even split needs more than a split does: ``dllama_worker.sharding.apportion`` also makes unequal ones.
"""

from __future__ import annotations

from dllama_proto.floats import BLOCK_SIZE, is_whole_blocks
from dllama_proto.model_header import ModelHeader

__all__ = ["even_node_counts", "even_split_obstacle"]


def even_node_counts(header: ModelHeader) -> list[int]:
    """Return the numbers of nodes, the root included, that can share a model evenly; 1 always can."""
    return [n for n in range(1, header.n_kv_heads + 1) if not even_split_obstacle(header, n)]


def even_split_obstacle(header: ModelHeader, n_nodes: int) -> str:
    """Return which dimension keeps ``n_nodes`` from sharing a model evenly, or an empty text.

    Key-value heads, feed-forward columns and tokens must be a multiple of the node count, and the rows of a
    node's slices must be whole blocks (C++ ``sliceKvCache``, ``sliceRowMatmul``, ``sliceColMatmul``).
    """
    for name, size in (
        ("key-value heads", header.n_kv_heads),
        ("feed-forward columns", header.ff_dim),
        ("tokens", header.vocab_size),
    ):
        if n_nodes < 1 or size % n_nodes:
            return f"it has {size} {name}"
    for name, size in (("query dimension", header.q_dim), ("feed-forward dimension", header.ff_dim)):
        if not is_whole_blocks(header.weight_float_type, size // n_nodes):
            return f"{size // n_nodes} a node of its {name} {size} are not whole blocks of {BLOCK_SIZE} weights"
    return ""
