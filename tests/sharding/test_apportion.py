"""Shares by strength: what each node gets of heads and columns, and what is said where it cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.enums import FloatType
from dllama_proto.even_split import even_node_counts
from dllama_proto.model_shapes import MODEL_SHAPES
from dllama_worker.errors import UsageError
from dllama_worker.model.presets import preset_header
from dllama_worker.sharding.apportion import (
    max_nodes,
    partition_by_weights,
    partition_evenly,
    partition_for,
)
from dllama_worker.sharding.partition import Partition, even_partition
from dllama_worker.sharding.split import Split, parse_split

_GQA = preset_header("gqa", FloatType.Q40)


def _counts(partition: Partition, name: str) -> list[int]:
    return [len(getattr(share, name)) for share in partition.shares]


@pytest.mark.parametrize(
    ("weights", "q_heads", "kv_heads", "hidden"),
    [
        ([3, 1], [6, 2], [3, 1], [384, 128]),
        ([1, 3], [2, 6], [1, 3], [128, 384]),
        ([1, 2, 1], [2, 4, 2], [1, 2, 1], [128, 256, 128]),
        ([5, 1, 1, 1], [5, 1, 1, 1], [3, 1, 1, 1], [320, 64, 64, 64]),
        ([1, 1, 1], [2, 2, 4], [1, 1, 2], [160, 160, 192]),
        ([1] * 5, [1, 1, 2, 2, 2], [1] * 5, [96, 96, 96, 96, 128]),
        ([1] * 8, [1] * 8, [1] * 8, [64] * 8),
        ([0, 1, 1], [0, 4, 4], [0, 2, 2], [0, 256, 256]),
        ([1, 1000], [2, 6], [1, 3], [32, 480]),  # 7 heads would begin inside a group and leave it
        ([1000, 1], [7, 1], [4, 1], [480, 32]),
    ],
)
def test_heads_and_columns_follow_the_weights(
    weights: list[float], q_heads: list[int], kv_heads: list[int], hidden: list[int]
) -> None:
    partition = partition_by_weights(_GQA, weights)
    assert _counts(partition, "q_heads") == q_heads
    assert _counts(partition, "kv_heads") == kv_heads
    assert _counts(partition, "hidden") == hidden


def test_the_vocabulary_is_cut_equally_and_filled_up() -> None:
    partition = partition_by_weights(_GQA, [4, 2, 1])
    assert [share.vocab for share in partition.shares] == [range(171), range(171, 342), range(342, 513)]
    assert partition.n_logits == 513


@pytest.mark.parametrize("preset", MODEL_SHAPES)
def test_an_even_split_is_the_cpp_roots_where_that_has_one(preset: str) -> None:
    header = preset_header(preset, FloatType.Q40)
    for n_nodes in range(1, min(max_nodes(header), 12) + 1):
        partition = partition_evenly(header, n_nodes)
        possible = n_nodes in even_node_counts(header)
        assert partition.is_even == possible
        if possible:
            assert (
                partition == even_partition(header, n_nodes) == partition_by_weights(header, [7] * n_nodes)
            )


def _best_by_trying(weights: Sequence[float]) -> float:
    """Return the least burden on the most burdened of all cuts of the 8 heads of _GQA."""

    def cut(start: int, node: int) -> float:
        if node == len(weights):
            return 0.0 if start == 8 else float("inf")
        stops = range(start + 1, 9 if start % 2 == 0 else start + 2)
        return min(
            (
                max((stop - start + (stop - 1) // 2 - start // 2 + 1) / weights[node], cut(stop, node + 1))
                for stop in stops
            ),
            default=float("inf"),
        )

    return cut(0, 0)


@given(st.lists(st.floats(0.05, 20), min_size=1, max_size=8))
def test_no_other_cut_of_heads_burdens_the_most_burdened_less(weights: list[float]) -> None:
    shares = partition_by_weights(_GQA, weights).shares
    burdens = [(len(s.q_heads) + len(s.kv_heads)) / w for s, w in zip(shares, weights, strict=True)]
    assert max(burdens) == pytest.approx(_best_by_trying(weights))


@given(st.lists(st.floats(0.05, 20), min_size=2, max_size=8))
def test_no_block_of_columns_moved_would_help_the_most_burdened(weights: list[float]) -> None:
    blocks = [len(share.hidden) // 32 for share in partition_by_weights(_GQA, weights).shares]
    burdens = [n / w for n, w in zip(blocks, weights, strict=True)]
    worst = max(n / w for n, w in zip(blocks, weights, strict=True) if n > 1 or n / w == max(burdens))
    if worst == max(burdens) and blocks[burdens.index(worst)] > 1:
        assert all((n + 1) / w >= worst * (1 - 1e-12) for n, w in zip(blocks, weights, strict=True))


@pytest.mark.parametrize(
    ("change", "n_nodes", "reason"),
    [
        ({}, 9, "9 computing nodes .* has 8 query heads, and a node needs one.* nearest possible: 8 nodes"),
        (
            {"hidden_dim": 96},
            4,
            "it has 96 feed-forward columns, and 32 make a whole block, .* enough for 3",
        ),
        (
            {"head_dim": 8},
            3,
            "it has 8 query heads, and 4 make a whole block, .* nearest possible: 2 nodes",
        ),
    ],
)
def test_too_many_nodes_are_refused_by_dimension(change: dict[str, Any], n_nodes: int, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        partition_evenly(replace(_GQA, **change), n_nodes)


def test_heads_that_cannot_be_cut_so_are_refused() -> None:
    # Whole blocks take 2 heads, groups 3: two parts would have to begin in one group and reach into the next.
    header = replace(_GQA, n_heads=6, n_kv_heads=2, head_dim=16)
    assert _counts(partition_evenly(header, 1), "q_heads") == [6]
    with pytest.raises(
        UsageError, match=r"groups of 3 for one key-value head, and 2 make whole blocks.*: 2"
    ):
        partition_evenly(header, 3)


@pytest.mark.parametrize("weights", [[1.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="its weight in the split is"):
        partition_by_weights(_GQA, weights)


def test_somebody_has_to_compute() -> None:
    with pytest.raises(UsageError, match="no node is left to compute"):
        partition_by_weights(_GQA, [0])
    with pytest.raises(UsageError, match="at least one node"):
        partition_by_weights(_GQA, [])


def test_a_split_has_a_weight_for_every_node() -> None:
    with pytest.raises(UsageError, match="the split 3:1 has 2 weights, expected 3: the root and 2 workers"):
        partition_for(_GQA, parse_split("3:1"), 3)


def test_splits_are_read_and_written() -> None:
    assert parse_split("even") == Split()
    assert parse_split("3:1.5:0") == Split((3, 1.5, 0))
    assert [str(split) for split in (Split(), Split((3, 1.5)))] == ["even", "3:1.5"]
    assert str(Split(root_share=0)) == "even, the root with a share of 0"
    assert not Split(root_share=0).is_even
    assert parse_split("auto") == Split(auto=True)
    assert not Split(auto=True).is_even


@pytest.mark.parametrize("text", ["", "3:", "3:x", "3;1", "-1:2", "nan:1", "inf"])
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected even, auto, or a number for each node"):
        parse_split(text)
