"""``dllama-model``: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama_proto.exit_codes import ExitCode
from dllama_worker.demo import MODEL_PATH
from dllama_worker.model.open_options import OpenOptions, WeightChoice
from dllama_worker.model.opening import open_model
from dllama_worker.model_cli.cli import main
from dllama_worker.tokenizer.opening import load_tokenizer
from tests.helpers.tiny_models import TINY_MODELS, tiny_gguf, write_llama_folder


def test_inspect_tells_what_a_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_gguf("llama-q4_0"))]) == ExitCode.DONE
    said = capsys.readouterr().out
    for fact in ("GGUF file, 139.5 kB", "Q4_0: 14 tensors, 55.3 kB", "512 tokens, ends at 497 <|im_end|>"):
        assert fact in said
    assert "LLAMA3_1" in said


@pytest.mark.parametrize("name", ["llama-q4_0", "qwen3moe-q4_0"])
def test_inspect_as_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_gguf(name)), "--json"]) == ExitCode.DONE
    document = json.loads(capsys.readouterr().out)
    assert document["header"]["weight_float_type"] == "Q40"
    assert document["tokenizer"]["tokens"] == 512
    assert [row["nodes"] for row in document["nodes"]][:2] == [1, 2]
    assert document["nodes"][0]["worker"] is None


def test_inspect_of_a_m_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(MODEL_PATH)]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert ".m file" in said
    assert "has no tokenizer in it" in said


@pytest.mark.parametrize("weights", ["f32", "q40"])
def test_convert_writes_what_is_streamed(tmp_path: Path, weights: str) -> None:
    source, target, tokenizer = tiny_gguf("llama-f32"), tmp_path / "o.m", tmp_path / "o.t"
    words = ["convert", str(source), str(target), "--weights", weights, "--tokenizer", str(tokenizer)]
    assert main(words) == ExitCode.DONE
    choice = WeightChoice(weights)
    one, other = open_model(source, OpenOptions(weights=choice, logits=choice)), open_model(target)
    assert other.header == one.header
    for entry in one.tensors.values():
        rows = range(entry.d)
        key = entry.name, entry.layer, entry.expert
        assert other.rows(other.tensors[key], rows).tobytes() == one.rows(entry, rows).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.m", "o.t"]
    found = load_tokenizer(tokenizer)
    recorded = json.loads((TINY_MODELS / "tiny-tokens.json").read_text(encoding="utf-8"))
    for text in recorded:
        tokens = found.encode(text, is_start=False)
        assert b"".join(found.vocabulary.pieces[token] for token in tokens).decode() == text


def test_convert_takes_folders(tmp_path: Path) -> None:
    write_llama_folder(tmp_path / "folder")
    for source in (tmp_path / "folder", tiny_gguf("llama-f32")):
        assert main(["convert", str(source), str(tmp_path / f"{source.name}.m")]) == ExitCode.DONE
    assert (tmp_path / "folder.m").read_bytes() == (tmp_path / "tiny-llama-f32.gguf.m").read_bytes()


def test_convert_refuses_what_a_m_file_cannot_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_llama_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-7}))
    target = tmp_path / "o.m"
    assert main(["convert", str(tmp_path), str(target)]) == ExitCode.CALLER
    assert "norm epsilon 1e-07, where a .m file has 1e-5 or 1e-6" in capsys.readouterr().err
    assert not target.exists()
    assert main(["convert", str(MODEL_PATH), str(target)]) == ExitCode.CALLER


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["convert", str(tiny_gguf("llama-f32")), str(tmp_path / "none" / "o.m")]) == ExitCode.MACHINE
    )
    assert "cannot be written" in capsys.readouterr().err


def test_verify_finds_no_difference_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_gguf("llama-q4_0"))
    assert main(["verify", path, path, "--tokens", "40"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert "largest difference 0, " in said
    assert "after 40 of 40" in said


def test_verify_tells_how_far_a_quantised_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    pair = [str(tiny_gguf("llama-f32")), str(tiny_gguf("llama-q4_0"))]
    assert main(["verify", *pair, "--tokens", "8"]) == ExitCode.DONE
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if line.startswith("block_matmul_w1 "))
    assert 5 < float(row[1].rstrip("%")) < 12
    assert main(["verify", pair[0], str(tiny_gguf("qwen3-q4_0"))]) == ExitCode.CALLER
    assert "not of one shape" in capsys.readouterr().err


def test_pull_prints_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", str(tiny_gguf("llama-f32"))]) == ExitCode.DONE
    assert capsys.readouterr().out.strip() == str(tiny_gguf("llama-f32"))
    assert main(["pull", "gpt9"]) == ExitCode.CALLER
