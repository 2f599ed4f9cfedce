"""A node's buffers: one table tells names, order and widths."""

from __future__ import annotations

from dataclasses import fields

import pytest

from dllama_proto.enums import FloatType
from dllama_worker.model.presets import preset_header
from dllama_worker.root.layout import buffers
from dllama_worker.root.layout.buffers import BufferIndexes, Buffers, lay_buffers
from dllama_worker.root.layout.shape import NodeShape
from dllama_worker.sharding.apportion import partition_by_weights, partition_evenly
from dllama_worker.sharding.partition import Partition


def _laid(preset: str, partition: Partition | None = None, node: int = 0, *, f32: bool = False) -> Buffers:
    weights, sync = (FloatType.F32, FloatType.F32) if f32 else (FloatType.Q40, FloatType.Q80)
    header = preset_header(preset, weights)
    shape = NodeShape.of(header, partition or partition_evenly(header, 2), node, sync, 32)
    return lay_buffers(shape)


def test_every_index_has_a_buffer() -> None:
    assert [field.name for field in fields(BufferIndexes)] == list(buffers._BUFFERS)


@pytest.mark.parametrize("preset", ["gqa", "qwen3", "qwen3_moe"])
def test_quantised_twins_are_the_plain_ones_with_f32_sync(preset: str) -> None:
    plain, quantized = _laid(preset, f32=True), _laid(preset)
    twins = {key: buffer.twin_of for key, buffer in buffers._BUFFERS.items() if buffer.twin_of}
    assert twins == {"yq": "y", "dq": "d", "moe_yq": "moe_y", "moe_dq": "moe_d"}
    for key, twin in twins.items():
        assert getattr(plain.at, key) == getattr(plain.at, twin)
        own, other = (quantized.configs[getattr(quantized.at, name)].size for name in (key, twin))
        assert (own.float_type, other.float_type) == (FloatType.Q80, FloatType.F32)
        assert (own.z, own.y, own.x) == (other.z, other.y, other.x)
    assert len(plain.configs) == len(quantized.configs) - len(twins)


def test_caches_come_last_keys_and_values_by_turns() -> None:
    laid = _laid("gqa")
    names = [config.name for config in laid.configs]
    assert names[laid.k_caches[0] :] == ["k", "v"] * 3
    assert [names[i] for i in laid.v_caches] == ["v"] * 3
    header = preset_header("gqa", FloatType.Q40)
    assert {laid.configs[i].size.x for i in (*laid.k_caches, *laid.v_caches)} == {header.kv_dim // 2}


def test_a_node_without_heads_and_columns_has_no_memory_for_them() -> None:
    header = preset_header("gqa", FloatType.Q40)
    laid = _laid("gqa", partition_by_weights(header, [0, 1, 1]))
    absent = {key for key in buffers._BUFFERS if getattr(laid.at, key) < 0}
    assert {"z", "q", "k_temp", "att", "d", "dq", "l"} <= absent
    assert not {"x", "y", "yq", "logits"} & absent
    assert laid.k_caches == laid.v_caches == ()


def test_of_what_is_sliced_a_slice_is_as_wide_as_the_nodes_heads() -> None:
    header = preset_header("gqa", FloatType.Q40)
    partition = partition_by_weights(header, [3, 1])
    for node, share in enumerate(partition.shares):
        laid = _laid("gqa", partition, node)
        assert laid.configs[laid.at.z].size.x == 2 * len(share.q_heads) * header.head_dim


def test_heads_that_are_normed_have_a_mean_square_each() -> None:
    for preset, columns in (("gqa", 1), ("qwen3", preset_header("qwen3", FloatType.Q40).n_heads // 2)):
        laid = _laid(preset)
        assert laid.configs[laid.at.inv_rms].size.x == columns
