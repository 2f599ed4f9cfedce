"""The .m file: header, tensor directory, and what is said about a broken one."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.enums import FloatType, RopeType
from dllama_proto.errors import ProtocolError, RemoteProtocolError
from dllama_proto.model_file import (
    check_file_size,
    decode_model_header,
    encode_model_header,
    model_header_size,
    tensor_entries,
)
from dllama_proto.model_header import ArchType, HiddenAct, ModelHeader, ModelKey
from dllama_proto.model_shapes import MODEL_SHAPES
from dllama_worker.model.presets import preset_header
from tests.helpers.captures import CASES, GOLDEN, load

_TINY = (GOLDEN / "models" / "tiny-q40.m").read_bytes()

_LLAMA = {
    ModelKey.ARCH: ArchType.LLAMA,
    ModelKey.DIM: 128,
    ModelKey.HIDDEN_DIM: 256,
    ModelKey.N_LAYERS: 2,
    ModelKey.N_HEADS: 4,
    ModelKey.N_KV_HEADS: 2,
    ModelKey.VOCAB_SIZE: 512,
    ModelKey.SEQ_LEN: 256,
    ModelKey.WEIGHT_FLOAT_TYPE: FloatType.Q40,
}
_MOE = _LLAMA | {
    ModelKey.ARCH: ArchType.QWEN3_MOE,
    ModelKey.N_EXPERTS: 8,
    ModelKey.N_ACTIVE_EXPERTS: 2,
    ModelKey.MOE_HIDDEN_DIM: 64,
}


def _raw(*pairs: tuple[int, int], magic: int = 0x0A00ABCD, size: int | None = None) -> bytes:
    body = b"".join(struct.pack("<ii", *pair) for pair in pairs)
    return struct.pack("<II", magic, 8 + len(body) if size is None else size) + body


def _fault(data: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_model_header(data)
    return caught.value


@pytest.mark.parametrize("name", ["tiny-q40.m", "tiny-f32.m"])
def test_the_recorded_models_are_understood_to_their_last_byte(name: str) -> None:
    data = (GOLDEN / "models" / name).read_bytes()
    header = decode_model_header(data)
    assert encode_model_header(header) == data[: header.header_size]
    check_file_size(header, len(data))
    entries = list(tensor_entries(header))
    assert entries[0].offset == header.header_size
    assert all(a.offset + a.n_bytes == b.offset for a, b in itertools.pairwise(entries))
    assert entries[-1].offset + entries[-1].n_bytes == len(data)


@pytest.mark.parametrize("case", CASES)
def test_headers_say_what_the_recorded_sessions_ran(case: str) -> None:
    session = load(case)
    recorded = dict(session.index["model_header"])
    header = preset_header(session.info["preset"], FloatType[session.info["weights"].upper()])
    renamed: dict[str, str] = {
        "arch_type": "arch",
        "max_seq_len": "seq_len",
        "weights_float_type": "weight_float_type",
        "rope_scaling_high_freq_factory": "rope_scaling_high_freq_factor",
    }
    recorded.pop("norm_epsilon", None)
    recorded.pop("rope_type", None)
    for name, value in recorded.items():
        assert isinstance(name, str)
        assert getattr(header, renamed.get(name, name)) == value, name


def test_defaults_are_those_of_the_c_plus_plus_program() -> None:
    header = ModelHeader.from_pairs(list(_LLAMA.items()))
    assert header.hidden_act is HiddenAct.SILU
    assert header.rope_type is RopeType.LLAMA
    assert header.rope_theta == 10000.0
    assert header.rope_scaling_factor == 1.0
    assert struct.pack("<f", header.norm_epsilon) == struct.pack("<f", 1e-5)
    assert (header.head_dim, header.q_dim, header.kv_dim, header.kv_group) == (32, 128, 64, 2)
    assert header.ff_dim == header.hidden_dim
    assert header.seq_len == header.orig_seq_len == 256


def test_qwen3_always_rotates_halves_and_may_have_wide_heads() -> None:
    pairs = _MOE | {ModelKey.HEAD_DIM: 64, ModelKey.ROPE_TYPE: RopeType.LLAMA, ModelKey.NORM_EPSILON: 6}
    header = ModelHeader.from_pairs(list(pairs.items()))
    assert header.rope_type is RopeType.FALCON
    assert (header.q_dim, header.kv_dim, header.ff_dim) == (256, 128, 64)
    assert struct.pack("<f", header.norm_epsilon) == struct.pack("<f", 1e-6)
    assert header.has_qk_norm
    assert header.is_moe


def test_a_repeated_key_counts_as_it_comes_last_and_is_kept() -> None:
    data = _raw((ModelKey.DIM, 64), *_LLAMA.items())
    header = decode_model_header(data)
    assert header.dim == 128
    assert encode_model_header(header) == data


def test_the_context_is_only_ever_cut() -> None:
    header = ModelHeader.from_pairs(list(_LLAMA.items()))
    cut = header.with_max_seq_len(64)
    assert (cut.seq_len, cut.orig_seq_len) == (64, 256)
    assert header.with_max_seq_len(0) is header
    assert header.with_max_seq_len(1000) is header
    assert encode_model_header(cut) == encode_model_header(header)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (ModelKey.ARCH, 7, "0xabcd00 LLAMA"),
        (ModelKey.DIM, 0, "at least 1"),
        (ModelKey.DIM, 100, "whole Q40 blocks"),
        (ModelKey.HIDDEN_DIM, -32, "at least 1"),
        (ModelKey.HIDDEN_DIM, 40, "whole Q40 blocks"),
        (ModelKey.N_LAYERS, 0, "at least 1"),
        (ModelKey.N_HEADS, -1, "at least 1"),
        (ModelKey.N_KV_HEADS, 3, "a divisor of 4"),
        (ModelKey.N_EXPERTS, 8, "0 with LLAMA"),
        (ModelKey.VOCAB_SIZE, 1 << 30, "at most 16777216"),
        (ModelKey.SEQ_LEN, 1 << 30, "at most 16777216"),
        (ModelKey.HIDDEN_ACT, 2, "one of"),
        (ModelKey.ROPE_TYPE, 3, "one of"),
        (ModelKey.ROPE_THETA, 0, "at least 1"),
        (ModelKey.WEIGHT_FLOAT_TYPE, 9, "one of"),
        (ModelKey.WEIGHT_FLOAT_TYPE, -1, "a float type with storage"),
        (ModelKey.HEAD_DIM, 33, "an even number"),
        (ModelKey.NORM_EPSILON, 7, "5 (for 1e-5)"),
    ],
)
def test_an_impossible_value_is_named_with_its_offset(key: ModelKey, value: int, expected: str) -> None:
    pairs = [pair for pair in _LLAMA.items() if pair[0] is not key]
    fault = _fault(_raw(*pairs, (key, value)))
    assert expected in fault.expected
    if key in (ModelKey.N_HEADS, ModelKey.DIM, ModelKey.N_KV_HEADS, ModelKey.HIDDEN_DIM) or value < 0:
        assert fault.path == f"ModelHeader.{key.name.lower()}"
    assert fault.offset == 8 + 8 * len(pairs) + 4
    assert fault.got == str(value)


@pytest.mark.parametrize("key", [ModelKey.N_EXPERTS, ModelKey.N_ACTIVE_EXPERTS, ModelKey.MOE_HIDDEN_DIM])
def test_a_model_of_experts_needs_all_about_them(key: ModelKey) -> None:
    pairs = {k: v for k, v in _MOE.items() if k is not key}
    fault = _fault(_raw(*pairs.items()))
    assert fault.path == f"ModelHeader.{key.name.lower()}"
    assert fault.got == "no such key"


@pytest.mark.parametrize("key", list(_LLAMA))
def test_what_no_model_can_do_without_is_required(key: ModelKey) -> None:
    fault = _fault(_raw(*(pair for pair in _LLAMA.items() if pair[0] is not key)))
    assert fault.path == f"ModelHeader.{key.name.lower()}"
    assert fault.offset is None


def test_an_unknown_key_is_refused_where_it_stands() -> None:
    fault = _fault(_raw(*_LLAMA.items(), (22, 1)))
    assert fault.path == "ModelHeader.pairs[9].key"
    assert fault.offset == 8 + 8 * 9


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"", "ModelHeader.magic"),
        (b"\xcd\xab\x00", "ModelHeader.magic"),
        (b"GGUF" + bytes(60), "ModelHeader.magic"),
        (_raw(magic=0xABCD00), "ModelHeader.magic"),
        (_raw(size=7), "ModelHeader.header_size"),
        (_raw(size=12), "ModelHeader.header_size"),
        (_raw(size=0xFFFF_FFF8), "ModelHeader.header_size"),
        (_TINY[:50], "ModelHeader.pairs"),
    ],
)
def test_what_is_no_header_is_refused_before_anything_is_taken_from_it(data: bytes, path: str) -> None:
    assert _fault(data).path == path


def test_an_old_format_is_told_from_no_model_at_all() -> None:
    assert "old model format" in _fault(_raw(magic=0xABCD00)).hint
    assert "not a model" in _fault(_raw(magic=0x46554747)).hint


def test_a_truncated_file_names_the_tensor_and_the_missing_bytes() -> None:
    header = decode_model_header(_TINY)
    w2 = next(e for e in tensor_entries(header) if e.name == "block_matmul_w2" and e.layer == 1)
    with pytest.raises(RemoteProtocolError) as caught:
        check_file_size(header, w2.offset + 100)
    assert "block_matmul_w2 of layer 1 (Q40 [128][256])" in caught.value.path
    assert caught.value.offset == w2.offset
    assert caught.value.got == f"100, {w2.n_bytes - 100} bytes missing"


def test_a_file_that_goes_on_after_its_last_tensor_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="1 byte more"):
        check_file_size(decode_model_header(_TINY), len(_TINY) + 1)


def test_a_header_that_claims_two_thousand_million_layers_costs_nothing() -> None:
    header = ModelHeader.from_pairs(list((_LLAMA | {ModelKey.N_LAYERS: 2**31 - 1}).items()))
    with pytest.raises(RemoteProtocolError, match="truncated"):
        check_file_size(header, 1_000_000)
    moe = ModelHeader.from_pairs(list((_MOE | {ModelKey.N_EXPERTS: 2**31 - 1}).items()))
    with pytest.raises(RemoteProtocolError, match="block_moe_gate"):
        check_file_size(moe, 1_000_000)


@pytest.mark.parametrize("preset", MODEL_SHAPES)
def test_every_preset_is_a_model_whose_header_comes_back(preset: str) -> None:
    for weights in (FloatType.F32, FloatType.Q40):
        header = preset_header(preset, weights)
        data = encode_model_header(header)
        assert decode_model_header(data) == header
        assert model_header_size(data[:8]) == len(data) == header.header_size


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda body: _TINY[:8] + body))
def test_any_bytes_give_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        header = decode_model_header(data)
    except ProtocolError:
        return
    assert encode_model_header(header) == data[: header.header_size]


@given(
    st.lists(
        st.tuples(st.sampled_from(ModelKey), st.integers(-(2**31), 2**31 - 1) | st.integers(0, 4096)),
        max_size=6,
    )
)
def test_any_pairs_give_a_consistent_header_or_a_protocol_error(pairs: list[tuple[int, int]]) -> None:
    data = _raw(*_LLAMA.items(), *pairs)
    try:
        header = decode_model_header(data)
    except ProtocolError:
        return
    assert encode_model_header(header) == data
    for entry in itertools.islice(tensor_entries(header), 30):
        assert entry.n_bytes > 0
