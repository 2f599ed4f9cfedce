"""Partitions: who holds what, and what is said about those that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dllama_proto.enums import FloatType
from dllama_proto.even_split import even_node_counts
from dllama_proto.model_shapes import MODEL_SHAPES
from dllama_worker.errors import UsageError
from dllama_worker.model.presets import preset_header
from dllama_worker.sharding.partition import NodeShare, Partition, even_partition

_GQA = preset_header("gqa", FloatType.Q40)
_HALVES = even_partition(_GQA, 2).shares


@pytest.mark.parametrize("preset", MODEL_SHAPES)
def test_an_even_partition_covers_everything_once(preset: str) -> None:
    header = preset_header(preset, FloatType.Q40)
    for n_nodes in even_node_counts(header):
        shares = even_partition(header, n_nodes).shares
        assert len(shares) == n_nodes
        for part, size in (
            ("q_heads", header.n_heads),
            ("kv_heads", header.n_kv_heads),
            ("hidden", header.ff_dim),
            ("vocab", header.vocab_size),
        ):
            ranges = [getattr(share, part) for share in shares]
            assert [i for r in ranges for i in r] == list(range(size))
            assert len({len(r) for r in ranges}) == 1


def test_node_counts_are_those_that_divide_all_dimensions() -> None:
    assert even_node_counts(_GQA) == [1, 2, 4]
    assert even_node_counts(preset_header("llama-3.1-8b", FloatType.Q40)) == [1, 2, 4, 8]


def test_counts_that_are_no_power_of_two_are_fine_where_everything_divides() -> None:
    header = replace(_GQA, n_heads=12, n_kv_heads=6, hidden_dim=576, vocab_size=600)
    assert even_node_counts(header) == [1, 2, 3, 6]
    assert even_partition(header, 3).shares[1].q_heads == range(4, 8)


@pytest.mark.parametrize(
    ("change", "n_nodes", "reason"),
    [
        ({}, 3, "it has 4 key-value heads; it can by 1, 2, 4"),
        ({}, 8, "it has 4 key-value heads; it can by 1, 2, 4"),
        ({}, 0, "by 0 nodes: it has 4 key-value heads"),
        (
            {"n_heads": 6, "n_kv_heads": 6, "hidden_dim": 160},
            3,
            "it has 160 feed-forward columns; it can by 1",
        ),
        ({"hidden_dim": 544}, 4, "136 a node of its feed-forward dimension 544 are not whole blocks of 32"),
        ({"vocab_size": 513}, 2, "it has 513 tokens; it can by 1"),
        ({"head_dim": 8}, 4, "16 a node of its query dimension 64 are not whole blocks of 32"),
    ],
)
def test_what_cannot_be_shared_evenly_is_refused_by_name(
    change: dict[str, Any], n_nodes: int, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        even_partition(replace(_GQA, **change), n_nodes)


def test_key_value_heads_may_be_held_by_several_nodes() -> None:
    shares = [
        NodeShare(range(i, i + 1), range(i // 2, i // 2 + 1), range(64 * i, 64 * i + 64), part)
        for i, part in enumerate(range(64 * i, 64 * i + 64) for i in range(8))
    ]
    assert Partition.of(_GQA, shares).n_nodes == 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"q_heads": range(4, 7)}, "hold 7 query heads of 8"),
        ({"q_heads": range(5, 8)}, "node 1: its query heads, 5 to 7, do not begin at 4"),
        ({"q_heads": range(4, 4)}, "hold 4 query heads of 8"),
        ({"hidden": range(256, 480)}, "hold 480 feed-forward columns of 512"),
        ({"vocab": range(200, 512)}, "node 1: its tokens, 200 to 511, do not begin at 256"),
        ({"kv_heads": range(1, 4)}, "node 1: query heads 4 to 7 need key-value heads 2 to 3, not 1 to 3"),
    ],
)
def test_a_partition_with_gaps_or_overlaps_is_refused(change: dict[str, range], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Partition.of(_GQA, [_HALVES[0], replace(_HALVES[1], **change)])


def test_tokens_are_shared_equally() -> None:
    shares = [replace(_HALVES[0], vocab=range(100)), replace(_HALVES[1], vocab=range(100, 512))]
    with pytest.raises(UsageError, match="equally many tokens"):
        Partition.of(_GQA, shares)


def test_blocks_stay_whole() -> None:
    shares = [replace(_HALVES[0], hidden=range(200)), replace(_HALVES[1], hidden=range(200, 512))]
    with pytest.raises(
        UsageError, match="node 0: its feed-forward columns, columns 0 to 199, part a block"
    ):
        Partition.of(_GQA, shares)
    assert Partition.of(replace(_GQA, weight_float_type=FloatType.F32), shares).n_nodes == 2


def test_query_heads_begin_with_their_group_or_lie_in_one() -> None:
    shares = [
        replace(_HALVES[0], q_heads=range(3)),
        replace(_HALVES[1], q_heads=range(3, 8), kv_heads=range(1, 4)),
    ]
    with pytest.raises(UsageError, match="node 1: query heads 3 to 7 begin inside a group of 2"):
        Partition.of(_GQA, shares)
