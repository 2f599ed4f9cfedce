"""Who holds what: for each node its heads, its part of the feed-forward block and of the vocabulary.

A partition is all that the layout and the weight slices of a node are made from. Its checks hold for any
partition; the even one, which is what the C++ root makes, is one constructor. How heads and columns are
shared out by strength is decided in :mod:`dllama_worker.sharding.apportion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllama_proto.even_split import even_node_counts, even_split_obstacle
from dllama_proto.formatting import counted
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.sharding.slicing import block_size

__all__ = ["NodeShare", "Partition", "even_partition", "needed_kv_heads", "vocab_parts"]


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one node holds, as ranges: query heads, key-value heads, feed-forward columns, tokens.

    With experts the feed-forward columns are those of every expert. A node with neither heads nor columns
    only computes its part of the logits. ``vocab`` may reach past the vocabulary: those rows of the
    classifier are zeros, and the root drops what comes out of them.
    """

    q_heads: range
    kv_heads: range
    hidden: range
    vocab: range


@dataclass(frozen=True, slots=True)
class Partition:
    """The shares of all nodes, the root's first. Made by :meth:`of` or :func:`even_partition`.

    ``is_even`` tells whether it is what the C++ root would make.
    """

    shares: tuple[NodeShare, ...]
    is_even: bool

    @classmethod
    def of(cls, header: ModelHeader, shares: Sequence[NodeShare]) -> Partition:
        """Check that the shares make up the model and can be computed with.

        Query heads, feed-forward columns and tokens are held exactly once, key-value heads by every node
        whose query heads need them; blocks stay whole; all nodes have equally many tokens, because slices
        of logits are equal. Raises UsageError naming the dimension.
        """
        _check_covered("query heads", [share.q_heads for share in shares], header.n_heads)
        _check_covered("feed-forward columns", [share.hidden for share in shares], header.ff_dim)
        _check_covered("tokens", [share.vocab for share in shares], _padded(header.vocab_size, len(shares)))
        if len({len(share.vocab) for share in shares}) > 1:
            raise UsageError("every node must hold equally many tokens of the vocabulary")
        unit = block_size(header.weight_float_type)
        for node, share in enumerate(shares):
            _check_heads(header, node, share)
            if bool(share.q_heads) != bool(share.hidden):
                # Its slice of the pipe would keep the other half layer's sums, and they would be added twice.
                raise UsageError(
                    f"node {node}: it must hold both heads and feed-forward columns, or neither"
                )
            q_dims = range(share.q_heads.start * header.head_dim, share.q_heads.stop * header.head_dim)
            for name, part in (("query heads", q_dims), ("feed-forward columns", share.hidden)):
                if part and (part.start % unit or part.stop % unit):
                    raise UsageError(
                        f"node {node}: its {name}, columns {_words(part)}, part a block of {unit} weights"
                    )
        return cls(tuple(shares), is_even=_is_even(header, shares))

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.shares)

    @property
    def n_logits(self) -> int:
        """Columns of the logits: the vocabulary, filled up until every node has equally many."""
        return sum(len(share.vocab) for share in self.shares)


def even_partition(header: ModelHeader, n_nodes: int) -> Partition:
    """Give every node as much of everything, as the C++ root does.

    Raises UsageError naming the dimension that cannot be parted so, and node counts that can.
    """
    obstacle = even_split_obstacle(header, n_nodes)
    if obstacle:
        possible = ", ".join(map(str, even_node_counts(header)))
        raise UsageError(
            f"this model cannot be shared evenly by {counted(n_nodes, 'node')}: {obstacle}; it can by {possible}"
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


def needed_kv_heads(header: ModelHeader, q_heads: range) -> range:
    """Return the key-value heads that some query heads attend to."""
    group = header.kv_group
    if not q_heads:
        return range(0)
    return range(q_heads.start // group, (q_heads.stop - 1) // group + 1)


def vocab_parts(header: ModelHeader, n_nodes: int) -> list[range]:
    """Cut the vocabulary equally, filled up to a multiple of the node count."""
    size = _padded(header.vocab_size, n_nodes)
    return [_nth_part(size, n_nodes, node) for node in range(n_nodes)]


def _is_even(header: ModelHeader, shares: Sequence[NodeShare]) -> bool:
    return header.n_kv_heads % len(shares) == 0 and all(
        len({len(part) for part in parts}) == 1
        for parts in (
            [share.q_heads for share in shares],
            [share.kv_heads for share in shares],
            [share.hidden for share in shares],
        )
    )


def _padded(size: int, n_parts: int) -> int:
    return -(-size // n_parts) * n_parts


def _nth_part(size: int, n_parts: int, i: int) -> range:
    part = size // n_parts
    return range(part * i, part * (i + 1))


def _check_covered(name: str, parts: Sequence[range], size: int) -> None:
    """Check that the parts, but for empty ones, follow each other from 0 to ``size``."""
    end = 0
    for node, part in enumerate(parts):
        if not part:
            continue
        if part.start != end or part.step != 1:
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
    needed = needed_kv_heads(header, share.q_heads)
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
    return f"{part.start} to {part.stop - 1}" if part else "none"
