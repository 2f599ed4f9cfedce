"""Weight pieces: which bytes of the model travel to which node, in which order."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dllama_proto.enums import FloatType
from dllama_worker.model.opening import open_model
from dllama_worker.model.source import ModelSource
from dllama_worker.model.synthetic import write_model
from dllama_worker.root.layout import build_layout
from dllama_worker.sharding.partition import even_partition
from dllama_worker.sharding.pieces import WeightPiece, node_weight_pieces
from tests.helpers.captures import CASES, load


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ModelSource]:
    """Models of the recordings, written again."""
    directory: Path = tmp_path_factory.mktemp("models")
    kinds = {(load(case).info["preset"], load(case).info["weights"]) for case in CASES}
    kinds.add(("qwen3_moe", "f32"))
    opened = {}
    for preset, weights in sorted(kinds):
        path = directory / f"{preset}-{weights}.m"
        write_model(path, preset, FloatType[weights.upper()], seed=11)
        opened[preset, weights] = open_model(path)
    return opened


def _stream(model: ModelSource, pieces: list[WeightPiece]) -> bytes:
    parts = []
    for piece in pieces:
        header, name = piece.header, piece.header.name.encode() + b"\0"
        parts += [struct.pack("<I", len(name)), name]
        parts += [struct.pack("<IQQ", header.op_index, header.offset, header.n_bytes)]
        data = piece.data(model)
        assert len(data) == header.n_bytes
        parts.append(bytes(data))
    return b"".join(parts) + bytes(4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_streams_are_those_of_the_recorded_c_plus_plus_root(
    case: str, models: dict[tuple[str, str], ModelSource]
) -> None:
    session = load(case)
    model = models[session.info["preset"], session.info["weights"]]
    partition = even_partition(model.header, session.n_nodes)
    for node in session.workers:
        pieces = list(node_weight_pieces(model.header, partition, node))
        assert len(pieces) == session.index["worker_config"]["n_weight_pieces"]
        recorded = session.stream(0, node)
        assert recorded.data[: recorded.bytes_before_inference].endswith(_stream(model, pieces))


@pytest.mark.parametrize("kind", [("gqa", "q40"), ("qwen3_moe", "q40"), ("qwen3_moe", "f32")])
@pytest.mark.parametrize("n_nodes", [1, 2, 4])
def test_every_weight_of_every_node_is_filled_exactly_once(
    kind: tuple[str, str], n_nodes: int, models: dict[tuple[str, str], ModelSource]
) -> None:
    header = models[kind].header
    partition = even_partition(header, n_nodes)
    sync = FloatType.Q80 if kind[1] == "q40" else FloatType.F32
    for node in build_layout(header, partition, sync).nodes:
        sizes = {
            (op.name, op.index): op.weight_size.n_bytes
            for segment in node.segments
            for op in segment.ops
            if op.weight_size.n_bytes
        }
        filled = dict.fromkeys(sizes, 0)
        for piece in node_weight_pieces(header, partition, node.node_index):
            key = piece.header.name, piece.header.op_index
            assert piece.header.offset == filled[key]
            filled[key] += piece.header.n_bytes
        assert filled == sizes
