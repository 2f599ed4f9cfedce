"""The vocabulary of a GGUF file gives the tokens of its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_worker.errors import UsageError
from dllama_worker.model.gguf.shards import read_gguf
from dllama_worker.tokenizer.gguf_vocabulary import read_gguf_vocabulary
from dllama_worker.tokenizer.split_rules import SPLIT_RULES
from tests.helpers.tiny_models import TINY_MODELS, tiny_gguf

tokenizers = pytest.importorskip("tokenizers")

_PATH = tiny_gguf("llama-q4_0")
_METADATA = dict(read_gguf(_PATH).metadata)
_RECORDED = json.loads((TINY_MODELS / "tiny-tokens.json").read_text(encoding="utf-8"))
_JUDGE = tokenizers.Tokenizer.from_file(str(TINY_MODELS / "tiny-tokenizer.json"))
_OURS = read_gguf_vocabulary(_PATH, _METADATA)


def _changed(**changes: Any) -> dict[str, Any]:
    return _METADATA | {"tokenizer.ggml." + key: value for key, value in changes.items()}


@pytest.mark.parametrize("text", _RECORDED)
def test_recorded_texts_have_the_model_s_tokens(text: str) -> None:
    assert _OURS.encode(text) == _RECORDED[text]


@given(st.text())
def test_any_text_has_the_library_s_tokens(text: str) -> None:
    text = text.replace("\0", "")
    assert _OURS.encode(text) == _JUDGE.encode(text, add_special_tokens=False).ids


@given(st.text("ab é日😀\n<|im_end|>"))
def test_tokens_are_the_text_again_and_never_half_a_character(text: str) -> None:
    decoder = _OURS.decoder()
    pieces = [decoder.decode(token) or b"" for token in _OURS.encode(text, special=False)]
    for piece in pieces:
        piece.decode()
    assert b"".join(pieces).decode() == text


def test_special_tokens_count_as_such_or_as_text() -> None:
    marker = _OURS.encode("<|im_end|>")
    assert marker == [497]
    spelled = _OURS.encode("<|im_end|>", special=False)
    assert len(spelled) > 1
    assert b"".join(_OURS.vocabulary.pieces[token] for token in spelled) == b"<|im_end|>"


def test_ends_are_those_named_and_those_known() -> None:
    assert _OURS.vocabulary.eos_ids == (497, 495)  # the file's <|im_end|>; <|endoftext|> by its name
    assert _OURS.vocabulary.bos_id == 495
    assert not _OURS.vocabulary.add_bos
    assert "<|im_start|>" in _OURS.vocabulary.templates.default


def test_a_beginning_stands_once() -> None:
    tokenizer = read_gguf_vocabulary(_PATH, _changed(add_bos_token=True))
    assert tokenizer.encode("a")[0] == 495
    assert tokenizer.encode("<|endoftext|>a") == tokenizer.encode("a")
    assert tokenizer.encode("a", is_start=False)[0] != 495


def test_bytes_that_are_no_text_are_marked() -> None:
    assert _OURS.encode(b"\xff") == _OURS.encode("\ufffd")
    with pytest.raises(UsageError, match="NUL at byte 1"):
        _OURS.encode("a\0")


@pytest.mark.parametrize("name", SPLIT_RULES)
def test_every_rule_parts_a_text_without_loss(name: str) -> None:
    tokenizer = read_gguf_vocabulary(_PATH, _changed(pre=name))
    text = "It's 12345 camelCase  \n\n x/y 日本 e"
    assert b"".join(tokenizer.vocabulary.pieces[token] for token in tokenizer.encode(text)).decode() == text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "bert"}, "expected gpt2 or llama"),
        ({"model": 3}, "tokenizer.ggml.model: expected a word"),
        ({"tokens": None}, "tokenizer.ggml.tokens: expected a list of texts"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens: expected a list of texts"),
        ({"tokens": [], "token_type": []}, "without tokens|expected a token"),
        ({"token_type": [1]}, "expected 512 numbers"),
        ({"pre": "klingon"}, "'klingon'"),
        ({"merges": ["nothing"]}, "expected two parts"),
        ({"merges": ["xyz qqq"]}, "no token"),
        ({"bos_token_id": 512}, "a token from 0 to 511"),
        ({"eos_token_id": -1}, "a token from 0 to 511"),
        ({"eos_token_id": True}, "a token from 0 to 511"),
        ({"add_bos_token": 1}, "true or false"),
    ],
)
def test_what_cannot_be_is_refused_by_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_gguf_vocabulary(Path("a.gguf"), _changed(**changes))
    assert "a.gguf" in str(caught.value)


def _sentence_piece(**changes: Any) -> dict[str, Any]:
    words = ["\u2581", "a", "b", "ab", "\u2581a", "\u2581ab", "\u65e5"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    scores = [0.0] * 259 + [-5.0, -6.0, -7.0, -3.0, -2.0, -1.0, -8.0]
    metadata: dict[str, Any] = {
        "model": "llama",
        "tokens": tokens,
        "token_type": types,
        "scores": scores,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {"tokenizer.ggml." + key: value for key, value in (metadata | changes).items()}


def test_sentence_piece_merges_the_best_and_falls_back_to_bytes() -> None:
    tokenizer = read_gguf_vocabulary(Path("a.gguf"), _sentence_piece())
    pieces = tokenizer.vocabulary.pieces
    tokens = tokenizer.encode("ab ab\u65e5\u672c")
    assert tokens[0] == 1  # texts begin so by themselves
    assert [pieces[token] for token in tokens[1:]] == [
        b" ab", b" ab", "\u65e5".encode(), *(bytes([byte]) for byte in "\u672c".encode()),
    ]  # fmt: skip
    assert pieces[3 + 65] == b"A"
    plain = read_gguf_vocabulary(Path("a.gguf"), _sentence_piece(add_space_prefix=False))
    assert [pieces[token] for token in plain.encode("ab", is_start=False)] == [b"ab"]


def test_scores_must_be_there() -> None:
    with pytest.raises(UsageError, match="scores: expected 266 numbers"):
        read_gguf_vocabulary(Path("a.gguf"), _sentence_piece(scores=[1.0]))
