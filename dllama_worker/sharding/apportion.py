"""Shares a model out by the strength of its nodes: from one weight a node to a partition.

Every node waits for the slowest twice a layer, after attention and after the feed-forward block; so each
of the two is shared out by itself, so that the largest of all (work / weight) is as small as whole heads and
whole blocks allow.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from math import gcd, inf

from dllama_proto.even_split import even_node_counts
from dllama_proto.formatting import counted
from dllama_proto.model_header import ModelHeader
from dllama_worker.errors import UsageError
from dllama_worker.sharding.partition import (
    NodeShare,
    Partition,
    even_partition,
    needed_kv_heads,
    vocab_parts,
)
from dllama_worker.sharding.slicing import block_size
from dllama_worker.sharding.split import Split

__all__ = [
    "max_nodes",
    "partition_by_weights",
    "partition_evenly",
    "partition_for",
    "possible_node_counts",
]

#: Columns in which float32 models are cut where they can be: vectors of any processor stay whole.
_F32_COLUMNS = 32

#: Larger than what rounding does to a ratio, smaller than any difference between two.
_SLACK = 1 + 1e-9


def partition_for(header: ModelHeader, split: Split, n_nodes: int) -> Partition:
    """Return the partition that was asked for. Raises UsageError where it is not possible."""
    if split.weights is None:
        return partition_evenly(header, n_nodes, split.root_share)
    if len(split.weights) != n_nodes:
        raise UsageError(
            f"the split {split} has {counted(len(split.weights), 'weight')}, expected {n_nodes}: the root and "
            f"{counted(n_nodes - 1, 'worker')}"
        )
    return partition_by_weights(header, split.weights)


def partition_evenly(header: ModelHeader, n_nodes: int, root_share: float = 1.0) -> Partition:
    """Share a model out as evenly as its heads and blocks allow, whatever the number of nodes.

    Where the C++ root could do it, this is its partition. ``root_share`` is the root's weight beside 1 for
    every worker; 0 leaves it the embedding and its part of the logits. Raises UsageError naming the
    dimension that does not suffice, and what would.
    """
    if root_share == 1 and n_nodes in even_node_counts(header):
        return even_partition(header, n_nodes)
    return partition_by_weights(header, [root_share] + [1.0] * (n_nodes - 1))


def partition_by_weights(header: ModelHeader, weights: Sequence[float]) -> Partition:
    """Share a model out in proportion to one weight a node, the root's first.

    Every node with a weight gets a head and a block at least, one with the weight 0 (which only the root may
    have) nothing but its part of the logits. Raises UsageError naming the dimension that does not suffice,
    and what would.
    """
    _check_weights(header, weights)
    head_unit, column_unit = _head_unit(header), _column_unit(header)
    heads = _share_heads(header, head_unit, weights)
    if heads is None:
        raise UsageError(
            f"{len(weights)} nodes cannot share the {header.n_heads} query heads of this model: they come in "
            f"groups of {header.kv_group} for one key-value head, and {head_unit} make whole blocks; nearest "
            f"possible: {_nearest_counts(header, len(weights))}"
        )
    columns = _share_units(header.ff_dim // column_unit, weights)
    vocab = vocab_parts(header, len(weights))
    return Partition.of(
        header,
        [
            NodeShare(
                q_heads=q_heads,
                kv_heads=needed_kv_heads(header, q_heads),
                hidden=range(part.start * column_unit, part.stop * column_unit),
                vocab=tokens,
            )
            for q_heads, part, tokens in zip(heads, columns, vocab, strict=True)
        ],
    )


def possible_node_counts(header: ModelHeader) -> list[int]:
    """Return the numbers of computing nodes that can share a model with equal weights, rising.

    The C++ root's are among them: of float32 columns it gives nodes fewer than are cut off here otherwise.
    """
    unit, counts = _head_unit(header), range(1, max_nodes(header) + 1)
    # With a unit of 1 groups can be parted anywhere, so nothing is in the way.
    shared = [n for n in counts if unit == 1 or _share_heads(header, unit, [1.0] * n) is not None]
    return sorted({*shared, *even_node_counts(header)})


def max_nodes(header: ModelHeader) -> int:
    """Return how many nodes can have a head and a block each; an idle root comes on top."""
    return min(header.n_heads // _head_unit(header), header.ff_dim // _column_unit(header))


def _check_weights(header: ModelHeader, weights: Sequence[float]) -> None:
    if not weights:
        raise UsageError("a model needs at least one node")
    for node, weight in enumerate(weights):
        if not 0 <= weight < inf or (node > 0 and weight == 0):
            raise UsageError(
                f"node {node}: its weight in the split is {weight:g}, expected a number above 0 (the root's may "
                "be 0); a worker that is to do nothing is best left out"
            )
    n_working = sum(weight > 0 for weight in weights)
    if n_working == 0:
        raise UsageError("no node is left to compute: a root with the share 0 needs workers")
    for name, size, unit in (
        ("query heads", header.n_heads, _head_unit(header)),
        ("feed-forward columns", header.ff_dim, _column_unit(header)),
    ):
        if n_working > size // unit:
            each = f"{unit} make a whole block" if unit > 1 else "a node needs one"
            raise UsageError(
                f"{n_working} computing nodes cannot share this model: it has {size} {name}, and {each}, which "
                f"is enough for {size // unit}; nearest possible: {_nearest_counts(header, n_working)}"
            )


def _nearest_counts(header: ModelHeader, wanted: int) -> str:
    """Name the node counts next to the one that was asked for, smaller and larger."""
    possible = possible_node_counts(header)
    smaller, larger = [n for n in possible if n < wanted][-1:], [n for n in possible if n > wanted][:1]
    near = smaller + larger
    return " or ".join(map(str, near)) + (" node" if near == [1] else " nodes")


def _head_unit(header: ModelHeader) -> int:
    """Return how many query heads make whole blocks of weights."""
    unit = block_size(header.weight_float_type)
    return unit // gcd(unit, header.head_dim)


def _column_unit(header: ModelHeader) -> int:
    return max(block_size(header.weight_float_type), gcd(_F32_COLUMNS, header.ff_dim))


def _share_units(n_units: int, weights: Sequence[float]) -> list[range]:
    """Give out units one by one, each to the node that then has the smallest load, of equal ones to the last.

    The root, which is the first, has other work as well.
    """
    counts = [int(weight > 0) for weight in weights]
    waiting = [(2 / weight, -node) for node, weight in enumerate(weights) if weight > 0]
    heapq.heapify(waiting)
    for _ in range(n_units - sum(counts)):
        node = -waiting[0][1]
        counts[node] += 1
        heapq.heapreplace(waiting, ((counts[node] + 1) / weights[node], -node))
    ends = [sum(counts[: node + 1]) for node in range(len(counts))]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def _share_heads(header: ModelHeader, unit: int, weights: Sequence[float]) -> list[range] | None:
    """Cut the query heads into a part for each node, or return None where there is no way.

    A part begins with a group or lies in one. A head's work is the same with queries and output as with
    keys and values, so a part's work is its query heads and the key-value heads they need. Of all cuts in
    which the largest load is smallest, the one with the smallest sum of squares is taken.
    """
    steps = _head_parts(header, unit)
    working = [weight for weight in weights if weight > 0]
    smallest = _best_cuts(
        steps, working, header.n_heads, inf, lambda so_far, load, weight: max(so_far, load)
    )
    if smallest is None:
        return None
    limit = smallest[0] * _SLACK
    fair = _best_cuts(
        steps, working, header.n_heads, limit, lambda so_far, load, weight: so_far + weight * load**2
    )
    cuts = iter((fair or smallest)[1])
    parts, start = [], 0
    for weight in weights:
        stop = next(cuts) if weight > 0 else start
        parts.append(range(start, stop))
        start = stop
    return parts


def _head_parts(header: ModelHeader, unit: int) -> dict[int, list[tuple[int, int]]]:
    """Return where the parts that begin at each head can end, with their work."""
    group = header.kv_group
    parts: dict[int, list[tuple[int, int]]] = {}
    for start in range(0, header.n_heads, unit):
        end = header.n_heads if start % group == 0 else start - start % group + group
        parts[start] = [
            (stop, stop - start + len(needed_kv_heads(header, range(start, stop))))
            for stop in range(start + unit, end + 1, unit)
        ]
    return parts


def _best_cuts(
    parts: Mapping[int, Sequence[tuple[int, int]]],
    weights: Sequence[float],
    n_heads: int,
    limit: float,
    add: Callable[[float, float, float], float],
) -> tuple[float, tuple[int, ...]] | None:
    """Return the smallest cost of cutting all heads, no load above ``limit``, and where the parts end.

    ``add(cost so far, load, weight)`` is the cost with one part more. Dynamic programming over nodes: the
    best way to reach each head with the parts of the nodes so far.
    """
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for weight in weights:
        reached: dict[int, tuple[float, tuple[int, ...]]] = {}
        for start, (so_far, ends) in best.items():
            for stop, work in parts.get(start, ()):
                load = work / weight
                if load > limit:
                    break
                cost = add(so_far, load, weight)
                if stop not in reached or cost < reached[stop][0]:
                    reached[stop] = (cost, (*ends, stop))
        best = reached
    return best.get(n_heads)
