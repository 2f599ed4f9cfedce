"""Any model, any partition: slices put together are the model, and every config agrees with them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.enums import FloatType
from dllama_proto.limits import Limits
from dllama_proto.model_file import encode_model_header, tensor_entries
from dllama_proto.model_header import ArchType, HiddenAct, ModelHeader, ModelKey
from dllama_proto.verify import verify_net_config, verify_node_config
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.node.binding import bind
from dllama_worker.node.kernels import choose_kernels
from dllama_worker.node.memory import NodeMemory
from dllama_worker.report import Report
from dllama_worker.root.layout import Layout, build_layout
from dllama_worker.sharding.apportion import partition_by_weights
from dllama_worker.sharding.partition import NodeShare, Partition, needed_kv_heads, vocab_parts
from dllama_worker.sharding.pieces import node_weight_pieces
from dllama_worker.sharding.slicing import block_size

_TABLE = choose_kernels("", Report())


@st.composite
def headers(draw: st.DrawFn) -> ModelHeader:
    arch = draw(st.sampled_from(ArchType))
    weights = draw(st.sampled_from([FloatType.F32, FloatType.Q40]))
    n_kv_heads = draw(st.integers(1, 4))
    n_heads = n_kv_heads * draw(st.integers(1, 4))
    head_dim = draw(st.sampled_from([32, 64] if n_heads % 2 else [16, 32]))
    hidden = 32 * draw(st.integers(1, 6))
    values = {
        ModelKey.VERSION: 0,
        ModelKey.ARCH: arch,
        ModelKey.HIDDEN_ACT: HiddenAct.SILU,
        ModelKey.WEIGHT_FLOAT_TYPE: weights,
        ModelKey.DIM: 32 * draw(st.integers(1, 2)),
        ModelKey.HIDDEN_DIM: hidden,
        ModelKey.MOE_HIDDEN_DIM: hidden,
        ModelKey.N_LAYERS: draw(st.integers(1, 2)),
        ModelKey.N_HEADS: n_heads,
        ModelKey.N_KV_HEADS: n_kv_heads,
        ModelKey.HEAD_DIM: head_dim,
        ModelKey.VOCAB_SIZE: draw(st.integers(1, 70)),
        ModelKey.SEQ_LEN: draw(st.integers(1, 8)),
    }
    if arch is ArchType.QWEN3_MOE:
        n_experts = draw(st.integers(1, 3))
        values |= {
            ModelKey.N_EXPERTS: n_experts,
            ModelKey.N_ACTIVE_EXPERTS: draw(st.integers(1, n_experts)),
        }
    return ModelHeader.from_pairs([(key, int(value)) for key, value in values.items()])


@st.composite
def partitions(draw: st.DrawFn, header: ModelHeader) -> Partition:
    """Draw any cut of heads and columns that is allowed, perhaps with a node in between that has none."""
    unit, group = block_size(header.weight_float_type), header.kv_group
    head_unit = max(1, unit // header.head_dim)
    cuts, start = [0], 0
    most = header.ff_dim // 32
    while start < header.n_heads:
        end = header.n_heads if start % group == 0 else start - start % group + group
        stops = list(range(start + head_unit, end + 1, head_unit))
        if not stops or len(cuts) == most:
            # No cut leads on from here (blocks of several heads), or no column is left: all in one part.
            cuts, start = [0], header.n_heads
        else:
            start = draw(st.sampled_from(stops))
        cuts.append(start)
    n_parts = len(cuts) - 1
    columns = (
        sorted(draw(st.sets(st.integers(1, most - 1), min_size=n_parts - 1, max_size=n_parts - 1)))
        if n_parts > 1
        else []
    )
    column_cuts = [0, *(32 * cut for cut in columns), header.ff_dim]
    idle = draw(st.none() | st.integers(0, n_parts))
    held = [
        (range(cuts[i], cuts[i + 1]), range(column_cuts[i], column_cuts[i + 1])) for i in range(n_parts)
    ]
    if idle is not None:
        held.insert(idle, (range(0), range(0)))
    vocab = vocab_parts(header, len(held))
    return Partition.of(
        header,
        [
            NodeShare(q_heads, needed_kv_heads(header, q_heads), hidden, tokens)
            for (q_heads, hidden), tokens in zip(held, vocab, strict=True)
        ],
    )


def _layout(header: ModelHeader, partition: Partition) -> Layout:
    sync = FloatType.F32 if header.weight_float_type is FloatType.F32 else FloatType.Q80
    return build_layout(header, partition, sync, n_batches=2)


def _model(header: ModelHeader, directory: str) -> ModelSource:
    """Write a model of random bytes: only where they go matters here."""
    *_, last = tensor_entries(header)
    size = last.offset + last.n_bytes - header.header_size
    path = Path(directory) / "model.m"
    path.write_bytes(encode_model_header(header) + np.random.default_rng(size).bytes(size))
    return open_model(path)


@given(data=st.data(), header=headers())
def test_slices_put_together_are_the_model_byte_for_byte(data: st.DataObject, header: ModelHeader) -> None:
    partition = data.draw(partitions(header))
    with tempfile.TemporaryDirectory() as directory:
        model = _model(header, directory)
        held = {
            entry: np.zeros(model.rows(entry, range(entry.d)).shape, np.int64)
            for entry in model.tensors.values()
        }
        whole = {entry: np.zeros_like(model.rows(entry, range(entry.d))) for entry in held}
        unit = {entry: block_size(entry.float_type) for entry in held}
        for node in range(partition.n_nodes):
            for piece in node_weight_pieces(header, partition, node):
                if piece.slice is None:
                    assert not any(piece.data(model))
                    continue
                entry, rows, columns = piece.slice.entry, piece.slice.rows, piece.slice.columns
                at = (
                    slice(rows.start, rows.stop),
                    slice(columns.start // unit[entry], columns.stop // unit[entry]),
                )
                held[entry][at] += 1
                part = np.frombuffer(piece.data(model), whole[entry].dtype)
                whole[entry][at] = part.reshape(held[entry][at].shape)
        working = sum(bool(share.q_heads) for share in partition.shares)
        for entry, count in held.items():
            assert whole[entry].tobytes() == model.rows(entry, range(entry.d)).tobytes(), entry
            if entry.name in ("block_matmul_k", "block_matmul_v"):
                assert 1 <= count.min() <= count.max() <= min(working, header.kv_group)
            elif entry.name == "embedding" or entry.name.startswith(("block_matmul", "final_matmul")):
                assert count.min() == count.max() == 1, entry
            else:
                everywhere = partition.n_nodes if entry.name == "final_norm" else working
                assert count.min() == count.max() == everywhere, entry


@given(data=st.data(), header=headers())
def test_every_config_is_sound_and_its_weights_are_filled_once(
    data: st.DataObject, header: ModelHeader
) -> None:
    partition = data.draw(partitions(header))
    layout = _layout(header, partition)
    assert list(verify_net_config(layout.net, Limits())) == []
    for node in layout.nodes:
        assert list(verify_node_config(node, layout.net, Limits())) == []
        # Every shape is held against its op's contract here, as a worker does before it accepts.
        bound = bind(layout.net, node, NodeMemory(layout.net, node), _TABLE, 1)
        filled = dict.fromkeys(bound.weighted, 0)
        for piece in node_weight_pieces(header, partition, node.node_index):
            key = piece.header.name, piece.header.op_index
            assert piece.header.offset == filled[key]
            filled[key] += piece.header.n_bytes
        sizes = {key: op.context.weight.n_bytes for key, op in bound.weighted.items() if op.context.weight}
        assert filled == sizes


@given(data=st.data(), header=headers())
def test_whatever_weights_are_asked_for_make_a_partition(data: st.DataObject, header: ModelHeader) -> None:
    heads = header.n_heads if header.head_dim % 32 == 0 or header.weight_float_type is FloatType.F32 else 1
    most = min(heads, header.ff_dim // 32)
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=1, max_size=most))
    if data.draw(st.booleans()):
        weights = [0.0, *weights]
    assert partition_by_weights(header, weights).n_nodes == len(weights)
