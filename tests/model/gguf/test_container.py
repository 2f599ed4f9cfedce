"""What a GGUF file says is checked before it is believed."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllama_worker.errors import UsageError
from dllama_worker.model.gguf.container import read_container
from dllama_worker.model.gguf.shards import read_gguf
from dllama_worker.model.mapped_file import MappedFile
from dllama_worker.model.open_options import OpenOptions
from dllama_worker.model.opening import open_model
from tests.helpers.tiny_models import tiny_gguf

gguf = pytest.importorskip("gguf")


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _file(
    metadata: bytes = b"",
    n_keys: int = 0,
    tensors: bytes = b"",
    n_tensors: int = 0,
    data: bytes = b"",
    magic: bytes = b"GGUF",
    version: int = 3,
) -> bytes:
    head = magic + struct.pack("<IQQ", version, n_tensors, n_keys) + metadata + tensors
    return head + bytes(-len(head) % 32) + data


def _tensor(name: bytes, dims: tuple[int, ...], code: int, offset: int) -> bytes:
    return (
        _string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims) + struct.pack("<IQ", code, offset)
    )


_STRINGS = struct.pack("<IIQ", 9, 8, 1 << 40)
_NESTED = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 6 + struct.pack("<IQ", 0, 0)

_BROKEN = {
    "magic": (_file(magic=b"GGML"), "magic"),
    "version": (_file(version=1), "version"),
    "big-endian": (_file(version=3 << 24), "big-endian"),
    "too many keys": (_file(n_keys=1 << 40), "at most"),
    "too many tensors": (_file(n_tensors=1 << 40), "at most"),
    "fewer keys than said": (_file(n_keys=1), "truncated"),
    "key twice": (_file((_string(b"a") + struct.pack("<IB", 0, 1)) * 2, 2), "twice"),
    "long string": (_file(struct.pack("<Q", 1 << 60), 1), "at most"),
    "many strings": (_file(_string(b"a") + _STRINGS, 1), "fit into"),
    "deep arrays": (_file(_string(b"a") + _NESTED, 1), "deep"),
    "odd type": (_file(_string(b"a") + struct.pack("<I", 13), 1), "type of value"),
    "many numbers": (_file(_string(b"a") + struct.pack("<IIQ", 9, 10, 1 << 61), 1), "truncated"),
    "alignment": (_file(_string(b"general.alignment") + struct.pack("<II", 4, 3), 1), "multiple of 8"),
    "no dimension": (_file(tensors=_tensor(b"t", (), 0, 0), n_tensors=1), "dimensions"),
    "five dimensions": (_file(tensors=_tensor(b"t", (1,) * 5, 0, 0), n_tensors=1), "dimensions"),
    "odd tensor type": (_file(tensors=_tensor(b"t", (32,), 99, 0), n_tensors=1), "type"),
    "broken block": (_file(tensors=_tensor(b"t", (33,), 2, 0), n_tensors=1, data=bytes(64)), "whole Q4_0"),
    "nothing in it": (_file(tensors=_tensor(b"t", (0,), 0, 0), n_tensors=1), "whole F32"),
    "huge": (_file(tensors=_tensor(b"t", (1 << 62, 1 << 62), 0, 0), n_tensors=1), "truncated"),
    "beyond the end": (
        _file(tensors=_tensor(b"t", (32,), 0, 64), n_tensors=1, data=bytes(128)),
        "truncated",
    ),
    "far away": (
        _file(tensors=_tensor(b"t", (32,), 0, 1 << 63), n_tensors=1, data=bytes(128)),
        "truncated",
    ),
    "overlap": (
        _file(
            tensors=_tensor(b"t", (32,), 0, 0) + _tensor(b"u", (32,), 0, 64), n_tensors=2, data=bytes(256)
        ),
        "behind 't'",
    ),
    "name twice": (
        _file(tensors=_tensor(b"t", (1,), 0, 0) + _tensor(b"t", (1,), 0, 4), n_tensors=2, data=bytes(64)),
        "twice",
    ),
}


@pytest.mark.parametrize("name", _BROKEN)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, name: str) -> None:
    data, said = _BROKEN[name]
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=said) as caught:
        read_container(MappedFile(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_values_of_every_type_are_what_the_library_wrote(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "llama")
    writer.add_uint8("a", 200)
    writer.add_int8("b", -3)
    writer.add_uint16("c", 60000)
    writer.add_int16("d", -3)
    writer.add_uint32("e", 4000000000)
    writer.add_int32("f", -3)
    writer.add_float32("g", 0.5)
    writer.add_bool("h", True)
    writer.add_string("i", "é")
    writer.add_array("j", ["x", "yy"])
    writer.add_array("k", [1, 2, 3])
    writer.add_uint64("l", 1 << 60)
    writer.add_int64("m", -(1 << 60))
    writer.add_float64("n", 0.1)
    writer.add_tensor("t", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_container(MappedFile(tmp_path / "all.gguf"))
    assert [read.metadata[key] for key in "abcdefghijklmn"] == [
        200, -3, 60000, -3, 4000000000, -3, 0.5, True, "é", ["x", "yy"], [1, 2, 3], 1 << 60, -(1 << 60), 0.1,
    ]  # fmt: skip
    tensor = read.tensors["t"]
    assert tensor.dims == (4, 3)
    stored = read.file.data[tensor.offset : tensor.offset + tensor.n_bytes].view("<f4")
    assert stored.tolist() == list(range(12))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    whole = tiny_gguf("llama-q4_0").read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 24000) | st.integers(0, len(whole) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(whole)))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(changed[:cut])
    with contextlib.suppress(UsageError):
        model = open_model(path, OpenOptions(max_seq_len=16))
        for entry in model.tensors.values():
            model.rows(entry, range(entry.d))


def test_shards_are_one_model(tmp_path: Path) -> None:
    whole = read_gguf(tiny_gguf("llama-q4_0"))
    names = list(whole.tensors)
    for number, part in enumerate((names[:5], names[5:])):
        writer = gguf.GGUFWriter(tmp_path / f"m-{number + 1:05}-of-00002.gguf", "llama")
        if number == 0:
            for key, value in whole.metadata.items():
                if key.startswith("llama."):
                    (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        for name in part:
            file, tensor = whole.tensors[name]
            stored = file.data[tensor.offset : tensor.offset + tensor.n_bytes].copy()
            shape = (*tensor.dims[:0:-1], tensor.n_bytes // (tensor.n_values // tensor.dims[0]))
            writer.add_tensor(
                name,
                stored.reshape(shape)
                if tensor.ggml_type.block_values > 1
                else stored.view("<f4").reshape(tensor.dims[::-1]),
                raw_dtype=gguf.GGMLQuantizationType[tensor.ggml_type.name],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    one = open_model(tiny_gguf("llama-q4_0"))
    for shard in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        other = open_model(tmp_path / shard)
        assert other.header == one.header
        for entry in one.tensors.values():
            rows = range(entry.d)
            assert one.rows(entry, rows).tobytes() == other.rows(entry, rows).tobytes()
    (tmp_path / "m-00001-of-00002.gguf").unlink()
    with pytest.raises(UsageError, match=r"m-00001-of-00002\.gguf: is missing"):
        open_model(tmp_path / "m-00002-of-00002.gguf")
