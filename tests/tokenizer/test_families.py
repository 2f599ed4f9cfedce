"""A .t file of a known family gives the tokens of its model, not those of merges across words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama_proto.tokenizer_file import TokenizerFile, encode_tokenizer
from dllama_worker.tokenizer.families import PartedTokenizer, recognise_rule, tokenizer_of
from dllama_worker.tokenizer.greedy import GreedyTokenizer
from dllama_worker.tokenizer.opening import load_tokenizer
from dllama_worker.tokenizer.split_rules import SPLIT_RULES

pytest.importorskip("tokenizers")

_BYTES = [bytes([byte]) for byte in range(1, 256)]
_LLAMA3 = [b"<|begin_of_text|>", b"<|eot_id|>"]


def _file(words: list[bytes], special: list[bytes], *, first: bool = False) -> TokenizerFile:
    """A vocabulary whose words are merged the sooner the earlier they stand."""
    regular = [*_BYTES, *words]
    pieces = [*special, *regular] if first else [*regular, *special]
    scores = [-float(i) for i in range(len(pieces))]
    bos_id = 0 if first else len(regular)
    return TokenizerFile.of(pieces, scores, bos_id=bos_id, eos_ids=[bos_id + 1], add_bos=False)


def _pieces(tokenizer: GreedyTokenizer, text: str) -> list[bytes]:
    return [tokenizer.vocabulary.pieces[token] for token in tokenizer.encode(text, is_start=False)]


def test_words_are_not_merged_with_each_other() -> None:
    file = _file([b"12", b"123", b"1234", b"a1", b" x"], _LLAMA3)
    greedy, parted = tokenizer_of(file, cpp_tokens=True), tokenizer_of(file)
    assert isinstance(greedy, GreedyTokenizer)
    assert isinstance(parted, PartedTokenizer)
    assert _pieces(greedy, "1234") == [b"1234"]
    assert _pieces(parted, "1234") == [b"123", b"4"]
    assert _pieces(greedy, "a1") == [b"a1"]
    assert _pieces(parted, "a1") == [b"a", b"1"]


def test_a_part_that_is_a_token_stays_one() -> None:
    # Nothing merges to it: its halves are no tokens.
    file = _file([b"hello"], _LLAMA3)
    assert _pieces(tokenizer_of(file), "hello") == [b"hello"]  # type: ignore[arg-type]
    assert _pieces(tokenizer_of(file, cpp_tokens=True), "hello") == [b"h", b"e", b"l", b"l", b"o"]  # type: ignore[arg-type]


def test_special_tokens_part_a_text() -> None:
    tokenizer = tokenizer_of(_file([b"12"], _LLAMA3))
    tokens = tokenizer.encode("1<|eot_id|>2", is_start=False)
    assert [tokenizer.vocabulary.pieces[token] for token in tokens] == [b"1", b"<|eot_id|>", b"2"]
    assert len(tokenizer.encode("<|eot_id|>", special=False)) == len("<|eot_id|>")


def test_bytes_that_are_no_text_are_tokens() -> None:
    tokenizer = tokenizer_of(_file([], _LLAMA3))
    assert b"".join(tokenizer.vocabulary.pieces[t] for t in tokenizer.encode(b"\xff\xfea")) == b"\xff\xfea"


@pytest.mark.parametrize("first", [False, True])
def test_special_tokens_may_stand_first(first: bool) -> None:
    """For C++ all others would be special then, and a text would fall into bytes."""
    special = [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>", b"<repo_name>"]
    tokenizer = tokenizer_of(_file([b"<a>", b"ab"], special, first=first))
    tokens = tokenizer.encode("ab<|im_end|><a>", is_start=False)
    assert [tokenizer.vocabulary.pieces[token] for token in tokens] == [
        b"ab",
        b"<|im_end|>",
        b"<",
        b"a",
        b">",
    ]


def test_llama_2_begins_words_with_a_space_and_spells_bytes() -> None:
    words = [b" ", b"a", b"b", b" a", b" ab", "\u65e5".encode()]
    pieces = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256)), *words]
    scores = [0.0] * 259 + [-5.0, -6.0, -7.0, -2.0, -1.0, -8.0]
    file = TokenizerFile.of(pieces, scores, bos_id=1, eos_ids=[2])
    tokenizer = tokenizer_of(file)
    tokens = tokenizer.encode("ab\u65e5\u672c")
    assert [tokenizer.vocabulary.pieces[token] for token in tokens] == [
        b"<s>", b" ab", "\u65e5".encode(), *(bytes([byte]) for byte in "\u672c".encode()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("special", "rule"),
    [
        (_LLAMA3, "llama-bpe"),
        ([b"<|im_start|>", b"<|im_end|>", b"<|object_ref_start|>"], "qwen2"),
        ([b"<|im_start|>", b"<|im_end|>", b"<repo_name>"], "smollm"),
        ([b"<|message|>", b"<|return|>", b"<|channel|>"], "gpt-4o"),
        (["<\uff5cplace\u2581holder\u2581no\u25810\uff5c>".encode(), b"<x>"], "deepseek-v3"),
        ([b"[INST]", b"[TOOL_CALLS]", b"[SUFFIX]"], "tekken"),
        ([b"<s>", b"</s>"], None),
    ],
)
def test_families_are_known_by_their_special_tokens(special: list[bytes], rule: str | None) -> None:
    assert recognise_rule(_file([], special)) is (None if rule is None else SPLIT_RULES[rule])


def test_nfc_composes_first() -> None:
    file = _file(["\u00e9".encode()], [b"<|im_start|>", b"<|im_end|>", b"<|object_ref_start|>"])
    assert _pieces(tokenizer_of(file), "e\u0301") == ["\u00e9".encode()]  # type: ignore[arg-type]
    assert json.dumps(_pieces(tokenizer_of(file), "e\u0301")[0].decode()) == '"\\u00e9"'  # type: ignore[arg-type]


def test_without_the_library_a_file_is_read_as_by_c_plus_plus_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "llama3.t"
    path.write_bytes(encode_tokenizer(_file([b"12", b"123", b"1234"], _LLAMA3)))
    monkeypatch.setattr("dllama_worker.tokenizer.library.find_spec", lambda name: None)
    told: list[str] = []
    tokenizer = load_tokenizer(path, warn=told.append)
    assert [tokenizer.vocabulary.pieces[token] for token in tokenizer.encode("1234")] == [b"1234"]
    assert "pip install 'dllama-worker[models]'" in told[0]
    load_tokenizer(path, cpp_tokens=True, warn=told.append)
    assert len(told) == 1


def test_tekken_is_no_sentence_piece() -> None:
    special = [b"<unk>", b"<s>", b"</s>", b"[INST]", b"[TOOL_CALLS]", b"[SUFFIX]"]
    assert recognise_rule(_file([b"ab"], special, first=True)) is SPLIT_RULES["tekken"]
