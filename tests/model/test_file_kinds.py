"""Files that people take for models and tokenizers are named as what they are, wherever one is opened."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.errors import RemoteProtocolError
from dllama_proto.file_kinds import HEAD_SIZE, recognise_file
from dllama_proto.model_file import read_model_header
from dllama_proto.tokenizer_file import read_tokenizer
from dllama_worker.demo import MODEL_PATH, TOKENIZER_PATH
from tests.helpers.captures import GOLDEN

ROOT = Path(__file__).parents[2]


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    return data.getvalue()


def _safetensors() -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"format": "pt"}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


_LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 4920739232\n"
)
_KINDS = [
    (b"GGUF" + struct.pack("<IQQ", 3, 291, 24), "a GGUF file", "dllama-root takes it as --model"),
    (_safetensors(), "a safetensors file", "dllama-root takes the folder"),
    (_zip(), "a zip archive", "unpack it"),
    (b"<!DOCTYPE html>\n<html><head><title>Sign in", "a web page", "/resolve/"),
    (b"\xef\xbb\xbf\n <HTML lang=en>", "a web page", "/resolve/"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "a web page", "/resolve/"),
    (_LFS, "a git-lfs pointer to a file of 4920739232 bytes", "git lfs pull"),
    (b"\x1f\x8b\x08\x00" + bytes(20), "a gzip file", "unpack it"),
    (b'{\n  "version": "1.0",\n  "added_tokens": [', "a JSON text", "convert-tokenizer"),
    (
        b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
        "a SentencePiece tokenizer",
        "convert-tokenizer",
    ),
    (b"Repository not found", "a text that begins 'Repository not found'", "downloaded"),
    (MODEL_PATH.read_bytes()[:HEAD_SIZE], "a model (.m file)", "swapped"),
    (TOKENIZER_PATH.read_bytes()[:HEAD_SIZE], "a tokenizer (.t file)", "swapped"),
]


@pytest.mark.parametrize(("data", "name", "advice"), _KINDS, ids=[name for _, name, _ in _KINDS])
def test_a_file_is_named_as_what_it_is(data: bytes, name: str, advice: str) -> None:
    kind = recognise_file(data)
    assert kind is not None
    assert kind.name == name
    assert advice in kind.advice
    for read in (read_model_header, read_tokenizer):
        if (read, name) in (
            (read_model_header, "a model (.m file)"),
            (read_tokenizer, "a tokenizer (.t file)"),
        ):
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            read(io.BytesIO(data))
        assert caught.value.got == name
        assert advice in caught.value.hint


def test_what_nobody_knows_keeps_its_number() -> None:
    assert recognise_file(b"\x01\x00\x00\x00\xff\xfe") is None
    with pytest.raises(RemoteProtocolError, match=r"got 0x00000001 \(not a model file\)"):
        read_model_header(io.BytesIO(b"\x01\x00\x00\x00" + b"\xff" * 12))


def test_an_empty_file_is_told() -> None:
    with pytest.raises(RemoteProtocolError, match="an empty file: was it downloaded whole"):
        read_model_header(io.BytesIO())


@given(st.binary(max_size=2 * HEAD_SIZE))
def test_any_bytes_are_looked_at_and_only_at_their_beginning(data: bytes) -> None:
    assert recognise_file(data) == recognise_file(data[:HEAD_SIZE])


def test_headers_that_are_longer_and_shorter_than_a_first_look_are_read() -> None:
    for path in (MODEL_PATH, GOLDEN / "models/tiny-q40.m"):
        with path.open("rb") as file:
            assert read_model_header(file).vocab_size == 512
    pairs = [(0, 0)] * 60 + [
        (1, 0xABCD00),
        (2, 128),
        (3, 256),
        (4, 2),
        (5, 4),
        (6, 4),
        (9, 512),
        (10, 64),
        (13, 0),
    ]
    body = b"".join(struct.pack("<ii", *pair) for pair in pairs)
    assert len(body) > 2 * HEAD_SIZE
    header = read_model_header(io.BytesIO(struct.pack("<II", 0x0A00ABCD, 8 + len(body)) + body + bytes(9)))
    assert (header.dim, header.seq_len) == (128, 64)


def test_of_another_kind_of_file_only_the_beginning_is_read() -> None:
    class Huge(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= HEAD_SIZE
            return super().read(size)

    with pytest.raises(RemoteProtocolError, match=r"a model \(\.m file\)"):
        read_tokenizer(Huge(MODEL_PATH.read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("dllama_proto", "inspect {odd}"),
        ("dllama_proto", "dissect --tokenizer {odd} {capture}"),
        ("dllama_worker", "--port 0 --model {odd}"),
        ("dllama_worker.root", "inference --prompt x --model {odd} --tokenizer {tokenizer}"),
        ("dllama_worker.root", "inference --prompt x --model {model} --tokenizer {odd}"),
        ("dllama_worker.root", "plan --nodes 2 --model {odd}"),
    ],
)
def test_every_command_that_opens_one_says_so_in_one_line(module: str, line: str, tmp_path: Path) -> None:
    odd = tmp_path / "model.bin"
    odd.write_bytes(b"lmgg" + struct.pack("<IQQ", 3, 291, 24))
    words = line.format(
        odd=odd, model=MODEL_PATH, tokenizer=TOKENIZER_PATH, capture=GOLDEN / "captures/tiny-q40-2n.pcap.gz"
    )
    done = subprocess.run(
        [sys.executable, "-m", module, *words.split()],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    [complaint] = [said for said in done.stderr.splitlines() if "error: " in said]
    assert f"{odd}: " in complaint
    assert "got a GGML file (not a " in complaint
    assert done.returncode == 2
