"""Who holds what: for each node its heads, its part of the feed-forward block and of the vocabulary.

A partition is all that the layout and the weight slices of a node are made from. Its checks hold for any
partition; the even one, which is what the C++ root makes, is one constructor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.model.slicing import block_size

__all__ = ["NodeShare", "Partition", "even_node_counts", "even_partition"]


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one node holds, as ranges: query heads, key-value heads, feed-forward columns, tokens.

    With experts the feed-forward columns are those of every expert.
    """

    q_heads: range
    kv_heads: range
    hidden: range
    vocab: range


@dataclass(frozen=True, slots=True)
class Partition:
    """The shares of all nodes, the root's first. Made by :meth:`of` or :func:`even_partition`."""

    shares: tuple[NodeShare, ...]

    @classmethod
    def of(cls, header: ModelHeader, shares: Sequence[NodeShare]) -> Partition:
        """Check that the shares make up the model and can be computed with.

        Query heads, feed-forward columns and tokens are held exactly once, key-value heads by every node
        whose query heads need them; blocks stay whole; all nodes have equally many tokens, because slices
        of logits are equal. Raises UsageError naming the dimension.
        """
        _check_covered("query heads", [share.q_heads for share in shares], header.n_heads)
        _check_covered("feed-forward columns", [share.hidden for share in shares], header.ff_dim)
        _check_covered("tokens", [share.vocab for share in shares], header.vocab_size)
        if len({len(share.vocab) for share in shares}) > 1:
            raise UsageError("every node must hold equally many tokens of the vocabulary")
        unit = block_size(header.weight_float_type)
        for node, share in enumerate(shares):
            _check_heads(header, node, share)
            q_dims = range(share.q_heads.start * header.head_dim, share.q_heads.stop * header.head_dim)
            for name, part in (("query heads", q_dims), ("feed-forward columns", share.hidden)):
                if part.start % unit or part.stop % unit:
                    raise UsageError(
                        f"node {node}: its {name}, columns {_words(part)}, part a block of {unit} weights"
                    )
        return cls(tuple(shares))

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.shares)


def even_partition(header: ModelHeader, n_nodes: int) -> Partition:
    """Give every node as much of everything, as the C++ root does.

    Raises UsageError naming the dimension that cannot be parted so, and node counts that can.
    """
    obstacle = _even_obstacle(header, n_nodes)
    if obstacle:
        possible = ", ".join(map(str, even_node_counts(header)))
        raise UsageError(
            f"this model cannot be shared evenly by {n_nodes} nodes: {obstacle}; it can by {possible}"
        )
    return Partition.of(
        header,
        [
            NodeShare(
                q_heads=_nth_part(header.n_heads, n_nodes, node),
                kv_heads=_nth_part(header.n_kv_heads, n_nodes, node),
                hidden=_nth_part(header.ff_dim, n_nodes, node),
                vocab=_nth_part(header.vocab_size, n_nodes, node),
            )
            for node in range(n_nodes)
        ],
    )


def even_node_counts(header: ModelHeader) -> list[int]:
    """Return the numbers of nodes, the root included, that can share a model evenly; 1 always can."""
    return [n for n in range(1, header.n_kv_heads + 1) if not _even_obstacle(header, n)]


def _even_obstacle(header: ModelHeader, n_nodes: int) -> str:
    """Say which dimension is in the way, or nothing."""
    for name, size in (
        ("key-value heads", header.n_kv_heads),
        ("feed-forward columns", header.ff_dim),
        ("tokens", header.vocab_size),
    ):
        if n_nodes < 1 or size % n_nodes:
            return f"it has {size} {name}"
    unit = block_size(header.weight_float_type)
    for name, size in (("query dimension", header.q_dim), ("feed-forward dimension", header.ff_dim)):
        if size // n_nodes % unit:
            return f"{size // n_nodes} a node of its {name} {size} are not whole blocks of {unit} weights"
    return ""


def _nth_part(size: int, n_parts: int, i: int) -> range:
    part = size // n_parts
    return range(part * i, part * (i + 1))


def _check_covered(name: str, parts: Sequence[range], size: int) -> None:
    """Check that the parts follow each other from 0 to ``size``."""
    end = 0
    for node, part in enumerate(parts):
        if part.start != end or part.step != 1 or not part:
            raise UsageError(
                f"node {node}: its {name}, {_words(part)}, do not begin at {end}, where those before end"
            )
        end = part.stop
    if end != size:
        raise UsageError(f"the nodes hold {end} {name} of {size}")


def _check_heads(header: ModelHeader, node: int, share: NodeShare) -> None:
    """Check that the node's query heads find their key-value heads.

    Attention takes local key-value head h / (query heads of a group) for local query head h: query heads
    begin with a group, or all lie in one.
    """
    group = header.kv_group
    needed = range(share.q_heads.start // group, (share.q_heads.stop - 1) // group + 1)
    if share.kv_heads != needed:
        raise UsageError(
            f"node {node}: query heads {_words(share.q_heads)} need key-value heads {_words(needed)}, not "
            f"{_words(share.kv_heads)}"
        )
    if share.q_heads.start % group and len(needed) > 1:
        raise UsageError(
            f"node {node}: query heads {_words(share.q_heads)} begin inside a group of {group} that shares "
            "a key-value head, and reach into the next"
        )


def _words(part: range) -> str:
    return f"{part.start} to {part.stop - 1}"
