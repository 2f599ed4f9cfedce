"""A folder as transformers saves it is the same model as its GGUF file, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dllama_worker.errors import UsageError
from dllama_worker.model.huggingface.safetensors_file import read_safetensors
from dllama_worker.model.open_options import OpenOptions, WeightChoice
from dllama_worker.model.opening import open_model
from tests.helpers.tiny_models import tiny_gguf, write_llama_folder


def test_every_row_is_that_of_the_gguf_file(tmp_path: Path) -> None:
    write_llama_folder(tmp_path)
    for weights in (WeightChoice.F32, WeightChoice.Q40):
        options = OpenOptions(weights=weights)
        one, other = open_model(tiny_gguf("llama-f32"), options), open_model(tmp_path, options)
        assert other.header == one.header
        for entry in one.tensors.values():
            whole = one.rows(entry, range(entry.d))
            assert other.rows(entry, range(entry.d)).tobytes() == whole.tobytes(), entry
            # Any rows, also of half a head.
            for start, stop in ((0, 1), (3, min(17, entry.d)), (entry.d - 1, entry.d)):
                if start < stop:
                    part = other.rows(entry, range(start, stop))
                    assert part.tobytes() == whole[start:stop].tobytes(), (entry, start, stop)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_halves_are_exact(tmp_path: Path, dtype: str) -> None:
    write_llama_folder(tmp_path, dtype)
    one, other = open_model(tiny_gguf("llama-f32")), open_model(tmp_path)
    entry = one.tensors["block_matmul_w1", 1, None]
    values, stored = one.rows(entry, range(entry.d)), other.rows(entry, range(entry.d))
    if dtype == "F16":
        assert (stored == values.astype("<f2").astype(np.float32)).all()
    else:
        assert (stored.view(np.uint32) == (values.view(np.uint32) & 0xFFFF0000)).all()
    assert f"{dtype} exactly as F32" in other.conversions


def test_an_index_names_the_files(tmp_path: Path) -> None:
    write_llama_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert open_model(tmp_path).header.n_layers == 2
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(UsageError, match=r"b\.safetensors: is missing"):
        open_model(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(UsageError, match="expected one beside it"):
        open_model(tmp_path)
    index.unlink()
    with pytest.raises(UsageError, match=r"not from \.bin files"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba"}, "'mamba': this program knows llama"),
        ({"hidden_size": None}, "hidden_size: expected a number"),
        ({"hidden_size": 63}, "has shape"),
        ({"hidden_act": "relu2"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"sliding_window": 128}, "--max-seq-len 128"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "four positive numbers"),
        ({"rope_scaling": [1]}, "an object or null"),
        ({"vocab_size": 513}, "has shape"),
        ({"num_hidden_layers": 3}, "has no tensor 'model.layers.2"),
        ({"num_hidden_layers": 1}, "has a tensor 'model.layers.1"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
    ],
)
def test_what_nodes_cannot_do_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    config = write_llama_folder(tmp_path) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=said):
        open_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, '{"model_type": 3}'])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_llama_folder(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json"):
        open_model(tmp_path)


_ENTRY = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"[]", "no JSON object"),
        (b"{nonsense", "no JSON"),
        (json.dumps({"t": 1}).encode(), "expected dtype"),
        (json.dumps({"t": _ENTRY | {"data_offsets": [0, 17]}}).encode(), "truncated"),
        (json.dumps({"t": _ENTRY | {"data_offsets": [16, 0]}}).encode(), "truncated"),
        (json.dumps({"t": _ENTRY | {"data_offsets": [-1, 16]}}).encode(), "expected dtype"),
        (json.dumps({"t": _ENTRY | {"shape": [1 << 61, 4]}}).encode(), "expected"),
        (json.dumps({"t": _ENTRY | {"shape": [5]}}).encode(), "expected 20"),
        (json.dumps({"t": _ENTRY, "u": _ENTRY}).encode(), "overlaps"),
    ],
)
def test_broken_tensors_are_refused(tmp_path: Path, header: bytes, said: str) -> None:
    write_llama_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(UsageError, match=said) as caught:
        open_model(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\1", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, data: bytes) -> None:
    write_llama_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UsageError, match=r"model\.safetensors|cannot be read"):
        open_model(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_when_they_are_read(tmp_path: Path, value: float) -> None:
    write_llama_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    norm = next(tensor for tensor in read_safetensors(path) if tensor.name == "model.norm.weight")
    data = bytearray(path.read_bytes())
    data[norm.offset + 8 : norm.offset + 12] = np.float32(value).tobytes()
    path.write_bytes(data)
    model = open_model(tmp_path)
    with pytest.raises(UsageError, match=r"'model\.norm\.weight' has a scale or value that is no number"):
        model.rows(model.tensors["final_norm", 0, None], range(1))
