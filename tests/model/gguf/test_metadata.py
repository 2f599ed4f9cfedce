"""What a GGUF file's metadata says becomes a header, or is refused with what nodes can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dllama_proto.enums import FloatType
from dllama_worker.errors import UsageError
from dllama_worker.model.gguf.metadata import describe
from dllama_worker.model.gguf.shards import GgufModel, read_gguf
from dllama_worker.model.open_options import OpenOptions, WeightChoice
from dllama_worker.model.opening import open_model
from tests.helpers.tiny_models import tiny_gguf


def _changed(**changes: Any) -> GgufModel:
    model = read_gguf(tiny_gguf("llama-f32"))
    metadata = dict(model.metadata)
    for key, value in changes.items():
        metadata["llama." + key.replace("__", ".")] = value
    return GgufModel(model.path, metadata, model.tensors, model.n_bytes)


def test_llama_3_1_is_known_by_its_factors() -> None:
    header = describe(read_gguf(tiny_gguf("llama-f32"))).header(FloatType.F32)
    assert header.rope_scaling_factor == 8
    assert header.rope_scaling_orig_max_seq_len == 8192
    assert header.rope_theta == 500000


def test_without_factors_nothing_is_scaled() -> None:
    header = describe(read_gguf(tiny_gguf("qwen3-q4_0"))).header(FloatType.Q40)
    assert header.rope_scaling_factor == 1
    assert header.norm_epsilon == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention__sliding_window": 4096}, "--max-seq-len 4096"),
        ({"attention__value_length": 8}, "as wide as keys"),
        ({"rope__dimension_count": 4}, "whole head"),
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, "rotate so only"),
        ({"expert_count": 8}, "qwen3moe"),
        ({"attention__head_count": [4, 8]}, "same for all layers"),
        ({"embedding_length": -1}, "embedding_length"),
        ({"embedding_length": True}, "embedding_length"),
        ({"block_count": "two"}, "block_count"),
        ({"attention__layer_norm_rms_epsilon": float("nan")}, "positive number"),
        ({"rope__freq_base": 10000.0}, "otherwise than Llama 3.1"),
    ],
)
def test_what_nodes_cannot_do_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        describe(_changed(**changes))


def test_a_window_that_is_not_reached_is_none() -> None:
    assert describe(_changed(attention__sliding_window=4096), max_seq_len=4096).seq_len > 4096


def test_other_architectures_are_refused_by_name() -> None:
    model = read_gguf(tiny_gguf("llama-f32"))
    other = GgufModel(model.path, {"general.architecture": "rwkv"}, model.tensors, model.n_bytes)
    with pytest.raises(UsageError, match="'rwkv': this program knows llama"):
        describe(other)


def test_types_follow_the_file_or_what_is_asked_for() -> None:
    path = tiny_gguf("llama-q4_0")
    types = {}
    for weights in WeightChoice:
        for logits in WeightChoice:
            header = open_model(path, OpenOptions(weights=weights, logits=logits)).header
            types[weights.value, logits.value] = (
                header.weight_float_type.name,
                header.logits_float_type.name,
            )
    assert types == {
        ("auto", "auto"): ("Q40", "F32"),  # the classifier is stored in Q8_0, and small
        ("auto", "q40"): ("Q40", "Q40"),
        ("auto", "f32"): ("Q40", "F32"),
        ("q40", "auto"): ("Q40", "F32"),
        ("q40", "q40"): ("Q40", "Q40"),
        ("q40", "f32"): ("Q40", "F32"),
        ("f32", "auto"): ("F32", "F32"),
        ("f32", "q40"): ("F32", "F32"),
        ("f32", "f32"): ("F32", "F32"),
    }


def test_conversions_are_told() -> None:
    path = tiny_gguf("llama-q4_0")
    assert open_model(path).conversions == "Q8_0 exactly as F32 (69.6 kB)"
    assert "Q8_0 requantised to Q40" in open_model(path, OpenOptions(logits=WeightChoice.Q40)).conversions
    assert open_model(tiny_gguf("llama-f32")).conversions == ""


def test_a_tensor_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    data = bytearray(tiny_gguf("llama-f32").read_bytes())
    # The same length: the norm is another tensor then.
    data = data.replace(b"blk.1.attn_norm.weight", b"blk.1.attn_nope.weight")
    path = tmp_path / "renamed.gguf"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"no tensor 'blk\.1\.attn_norm\.weight'"):
        open_model(path)
    reader = gguf.GGUFReader(tiny_gguf("llama-f32"))
    writer = gguf.GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if key.startswith("llama."):
            value = field.contents()
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
        if tensor.name == "blk.1.attn_q.weight":
            writer.add_tensor("blk.1.attn_q.bias", tensor.data[:, 0].copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match=r"has a tensor 'blk\.1\.attn_q\.bias'"):
        open_model(path)
