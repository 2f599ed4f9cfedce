"""``dllama-proto inspect``: what files hold, and what nodes would hold of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllama_proto.cli import main
from dllama_proto.dissect import WeightEvent, dissect_pcap
from dllama_proto.enums import FloatType
from dllama_proto.even_split import even_node_counts, even_split_obstacle
from dllama_proto.model_file import decode_model_header, encode_model_header, tensor_entries
from dllama_proto.model_header import ModelHeader, ModelKey
from dllama_proto.show.inspect_files import node_memory
from dllama_worker.sharding.apportion import partition_evenly
from dllama_worker.sharding.partition import even_partition
from tests.helpers.captures import GOLDEN, capture_path

_MODEL = GOLDEN / "models" / "tiny-q40.m"
_TOKENIZER = GOLDEN / "models" / "tiny.t"


def inspect_json(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_tensor_is_listed_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(str(_MODEL), capsys=capsys)
    header = decode_model_header(_MODEL.read_bytes())
    assert [row["offset"] for row in found["tensors"]] == [e.offset for e in tensor_entries(header)]
    last = found["tensors"][-1]
    assert last["offset"] + last["n_bytes"] == _MODEL.stat().st_size
    assert found["header"]["dim"] == header.dim
    assert found["node_counts"] == [1, 2, 4]


@pytest.mark.parametrize("model", ["tiny-q40.m", "tiny-f32.m"])
def test_what_a_node_holds_is_what_is_sent_to_it(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(str(GOLDEN / "models" / model), "--nodes", "2", capsys=capsys)
    events = dissect_pcap(capture_path(f"{model.removesuffix('.m')}-2n"))
    sent = sum(event.data_size for event in events if isinstance(event, WeightEvent))
    root, worker = found["nodes"]
    assert root["weights"] > worker["weights"]
    assert worker["total"] == worker["weights"] + worker["kv_cache"]
    assert sent == worker["weights"]


def test_every_even_node_count_is_one_that_the_root_splits_evenly() -> None:
    header = decode_model_header(_MODEL.read_bytes())
    for n in even_node_counts(header):
        assert even_partition(header, n).n_nodes == len(node_memory(header, n)) == n


def test_what_is_said_of_other_counts_is_said_of_an_even_split_only() -> None:
    header = decode_model_header(_MODEL.read_bytes())
    assert 3 not in even_node_counts(header)
    assert "key-value heads" in even_split_obstacle(header, 3)
    # The root can do it unevenly, so nothing may say that it is impossible.
    assert partition_evenly(header, 3).n_nodes == 3
    with pytest.raises(ValueError, match=r"3 nodes cannot share this model evenly: .*\(dllama-root plan"):
        node_memory(header, 3)


def test_the_claim_is_about_even_splits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(_MODEL)]) == 0
    assert (
        "an even split is possible for these numbers of nodes: 1, 2, 4 (dllama-root plan"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("float_type", "counts"),
    [(FloatType.Q40, [1]), (FloatType.Q80, [1]), (FloatType.F16, [1, 2, 4]), (FloatType.F32, [1, 2, 4])],
)
def test_only_quantised_weights_need_whole_blocks(float_type: FloatType, counts: list[int]) -> None:
    header = replace(decode_model_header(_MODEL.read_bytes()), weight_float_type=float_type, hidden_dim=96)
    assert even_node_counts(header) == counts


def test_weights_that_no_node_computes_with_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = dict(decode_model_header(_MODEL.read_bytes()).pairs) | {
        ModelKey.WEIGHT_FLOAT_TYPE: FloatType.F16
    }
    header = ModelHeader.from_pairs(list(pairs.items()))
    path = tmp_path / "f16.m"
    path.write_bytes(encode_model_header(header) + bytes(sum(e.n_bytes for e in tensor_entries(header))))
    assert inspect_json(str(path), capsys=capsys)["node_counts"] == []
    assert main(["inspect", str(path)]) == 0
    assert "no node computes with f16 weights: convert the model to f32 or q40" in capsys.readouterr().out
    assert main(["inspect", "--nodes", "2", str(path)]) == 2
    assert "no node computes with f16 weights" in capsys.readouterr().err


def test_a_tokenizer_is_told_by_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect_json(str(_TOKENIZER), capsys=capsys)
    assert (found["vocab_size"], found["bos_id"], found["eos_ids"]) == (512, 510, [511])
    assert main(["inspect", str(_TOKENIZER)]) == 0
    assert "special tokens    2" in capsys.readouterr().out


def test_text_has_the_table_and_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(_MODEL), "--nodes", "4"]) == 0
    text = capsys.readouterr().out
    assert "block_matmul_wo" in text
    assert "0 (root)" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "the file is truncated"),
        (lambda data: data + b"x", "1 byte more"),
        (lambda data: b"\x00" + data[1:], "ModelHeader.magic at byte 0"),
        (lambda data: data[:20], "bytes missing"),
        (lambda data: b"", "ModelHeader.magic at byte 0"),
    ],
)
def test_a_bad_file_is_named_with_the_offset(
    damage: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.m"
    path.write_bytes(damage(_MODEL.read_bytes()))
    assert main(["inspect", str(path), str(_MODEL)]) == 2
    captured = capsys.readouterr()
    assert str(path) in captured.err
    assert message in captured.err
    assert "block_matmul_wo" in captured.out
