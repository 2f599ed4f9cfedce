"""The layout: what is sent is what the C++ root sent in every recorded session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllama_proto.enums import FloatType, OpCode, PointerSource, PointerType, RopeType
from dllama_proto.messages import EmptyConfig, NetConfig, NodeConfig, OpConfig, RopeConfig, Size3D
from dllama_proto.model_header import HiddenAct, ModelHeader, ModelKey
from dllama_proto.schemas.net_config import NET_CONFIG
from dllama_proto.schemas.node_config import NODE_CONFIG
from dllama_worker.errors import UsageError
from dllama_worker.model.presets import preset_header
from dllama_worker.root.layout import Layout, Pipe, build_layout, check_float_types
from dllama_worker.sharding.partition import NodeShare, Partition, even_partition
from tests.helpers.captures import CASES, Session, load

_ACK = b"\xaa\xaa\x67\x01"


def _layout_of(session: Session) -> Layout:
    info = session.info
    header = preset_header(info["preset"], FloatType[info["weights"].upper()])
    header = header.with_max_seq_len(info["max_seq_len"])
    return build_layout(header, even_partition(header, info["nodes"]), FloatType[info["sync"].upper()])


def _recorded_configs(session: Session, node: int) -> tuple[bytes, bytes]:
    """Return NetConfig and NodeConfig of a worker, and whatever follows it, as the root sent them."""
    data = session.data(0, node)
    ack = data.index(_ACK * 2)
    rest = data[ack + 8 :]
    n_net = len(NET_CONFIG.build(NET_CONFIG.parse(rest)))
    assert rest[n_net : n_net + 4] == _ACK
    return rest[:n_net], rest[n_net + 4 :]


def _defined(node: NodeConfig) -> NodeConfig:
    """Return the same config with 0 for everything that C++ leaves uninitialised."""
    return replace(
        node,
        segments=tuple(replace(s, ops=tuple(map(_defined_op, s.ops))) for s in node.segments),
    )


def _defined_op(op: OpConfig) -> OpConfig:
    if isinstance(op.config, EmptyConfig):
        return replace(op, config=EmptyConfig())
    if isinstance(op.config, RopeConfig) and op.config.type is RopeType.FALCON:
        part = replace(op.config.slice, q_dim_start=0, q_dim_end=0, q_shift=0, kv_dim_start=0, slice_dim=0)
        return replace(op, config=replace(op.config, slice=part))
    return op


@pytest.mark.parametrize("case", CASES)
def test_configs_are_those_of_the_recorded_c_plus_plus_root(case: str) -> None:
    session = load(case)
    layout = _layout_of(session)
    for node in session.workers:
        net, rest = _recorded_configs(session, node)
        assert NET_CONFIG.build(layout.net) == net
        recorded: NodeConfig = NODE_CONFIG.parse(rest)
        assert rest.startswith(NODE_CONFIG.build(recorded))
        assert layout.nodes[node] == _defined(recorded)
        ours = NODE_CONFIG.build(layout.nodes[node])
        assert ours == NODE_CONFIG.build(_defined(recorded))
        if session.info["preset"] in ("tiny", "gqa", "llama31"):
            differing = sum(a != b for a, b in zip(ours, rest, strict=False))
            n_paddings = sum(isinstance(op.config, EmptyConfig) for op in _ops(recorded))
            assert differing <= n_paddings


@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_the_recorded_sessions(case: str) -> None:
    session = load(case)
    layout = _layout_of(session)
    recorded = session.index["worker_config"]
    for node in session.workers:
        config = layout.nodes[node]
        assert len(layout.net.pipes) == recorded["n_pipes"]
        assert len(config.buffers) == recorded["n_buffers"]
        assert len(config.segments) == recorded["n_segments"]
        assert len(_ops(config)) == recorded["n_ops"]


def test_only_the_root_embeds() -> None:
    layout = _layout_of(load("tiny-f32-4n"))
    first = [node.segments[0] for node in layout.nodes]
    assert [[op.code for op in segment.ops] for segment in first] == [[OpCode.EMBEDDING], [], [], []]
    assert len({segment.syncs for segment in first}) == 1
    assert first[0].ops[0].weight_size == Size3D.of(FloatType.F32, y=512, x=128)


@pytest.mark.parametrize("preset", ["llama31", "qwen3", "qwen3_moe"])
@pytest.mark.parametrize("weights", ["f32", "q40"])
@pytest.mark.parametrize("n_nodes", [1, 2, 4])
def test_every_pointer_and_slice_of_every_node_fits(preset: str, weights: str, n_nodes: int) -> None:
    header = preset_header(preset, FloatType[weights.upper()])
    sync = FloatType.Q80 if weights == "q40" else FloatType.F32
    layout = build_layout(header, even_partition(header, n_nodes), sync)
    for node in layout.nodes:
        _check_pointers(layout.net, node)


def test_experts_can_be_laid_out_with_f32() -> None:
    header = preset_header("qwen3_moe", FloatType.F32)
    node = build_layout(header, even_partition(header, 2), FloatType.F32).nodes[1]
    names = [buffer.name for buffer in node.buffers]
    assert not [name for name in names if name.startswith("q_") and name != "q_z_slice"]
    repeat = next(op for op in _ops(node) if op.code is OpCode.REPEAT_Z)
    assert names[repeat.output.index] == "moe_y"
    assert node.buffers[repeat.output.index].size == Size3D.of(FloatType.F32, z=2, y=32, x=256)


def test_gelu_models_get_gelu() -> None:
    pairs = [*preset_header("tiny", FloatType.F32).pairs, (ModelKey.HIDDEN_ACT, HiddenAct.GELU)]
    header = ModelHeader.from_pairs(pairs)
    node = build_layout(header, even_partition(header, 1), FloatType.F32).nodes[0]
    codes = [op.code for op in _ops(node) if op.name == "block_act"]
    assert codes == [OpCode.GELU] * header.n_layers


def test_the_number_of_rows_is_a_choice() -> None:
    header = preset_header("tiny", FloatType.Q40)
    layout = build_layout(header, even_partition(header, 2), FloatType.Q80, n_batches=8)
    assert layout.net.n_batches == 8
    assert {pipe.size.y for pipe in layout.net.pipes} == {8}


def test_an_uneven_partition_gives_each_node_its_own_widths() -> None:
    header = preset_header("gqa", FloatType.Q40)
    partition = Partition.of(
        header,
        [
            NodeShare(range(6), range(3), range(384), range(256)),
            NodeShare(range(6, 8), range(3, 4), range(384, 512), range(256, 512)),
        ],
    )
    layout = build_layout(header, partition, FloatType.Q80)
    for node, (q_dim0, kv_dim0, ff_dim0) in zip(layout.nodes, [(192, 96, 384), (64, 32, 128)], strict=True):
        _check_pointers(layout.net, node)
        widths = {buffer.name: buffer.size.x for buffer in node.buffers}
        assert widths["q"] == widths["q_z_slice"] == q_dim0
        assert widths["z"] == 2 * q_dim0
        assert widths["k"] == widths["k_temp"] == kv_dim0
        assert widths["d"] == widths["q_d"] == ff_dim0
        ropes = [op.config for op in _ops(node) if isinstance(op.config, RopeConfig)]
        assert {rope.slice.q_dim0 for rope in ropes} == {q_dim0}
        # Keys are read from the cache's beginning, queries from q_shift on: both must end within a row.
        assert all(rope.slice.q_shift + q_dim0 <= rope.slice.slice_dim >= kv_dim0 for rope in ropes)


@pytest.mark.parametrize(
    ("weights", "sync", "reason"),
    [
        (
            FloatType.F16,
            FloatType.F32,
            "f16 weights, which no node computes with: convert it to q40 or f32",
        ),
        (FloatType.Q80, FloatType.Q80, "q80 weights, which no node computes with"),
        (FloatType.Q40, FloatType.F32, "q40 weights go with --buffer-float-type q80, not f32"),
        (FloatType.F32, FloatType.Q80, "f32 weights go with --buffer-float-type f32, not q80"),
    ],
)
def test_float_types_that_do_not_go_together_are_refused(
    weights: FloatType, sync: FloatType, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        check_float_types(weights, sync)
    header = preset_header("tiny", weights)
    with pytest.raises(UsageError, match=reason):
        build_layout(header, even_partition(header, 1), sync)


def test_pipes_are_where_their_names_say() -> None:
    layout = _layout_of(load("tiny-q40-2n"))
    assert [pipe.name for pipe in layout.net.pipes] == [pipe.name for pipe in Pipe if pipe is not Pipe.ZERO]
    header = replace(preset_header("tiny", FloatType.F32), has_qkv_bias=True)
    with_biases = build_layout(header, even_partition(header, 1), FloatType.F32)
    assert [pipe.name for pipe in with_biases.net.pipes] == [pipe.name for pipe in Pipe]


def _ops(node: NodeConfig) -> list[OpConfig]:
    return [op for segment in node.segments for op in segment.ops]


def _check_pointers(net: NetConfig, node: NodeConfig) -> None:
    """Check that input, weight and output of every matmul and cast have the same widths."""

    def width(op: OpConfig, output: bool) -> int:
        pointer = op.output if output else op.input
        configs = net.pipes if pointer.source is PointerSource.PIPE else node.buffers
        size = configs[pointer.index].size
        if pointer.type is PointerType.BATCHED_SLICE:
            assert size.x % net.n_nodes == 0
            return size.x // net.n_nodes
        return size.x

    for op in _ops(node):
        if op.code is OpCode.MATMUL:
            assert width(op, output=False) == op.weight_size.y, op.name
            assert width(op, output=True) == op.weight_size.x, op.name
        elif op.code is OpCode.CAST:
            assert width(op, output=False) == width(op, output=True), op.name
