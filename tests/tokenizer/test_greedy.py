"""Text to tokens and back: as the C++ program does, recorded case by case."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.tokenizer_file import TokenizerFile, decode_tokenizer
from dllama_worker import demo
from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.decoder import complete_utf8
from dllama_worker.tokenizer.greedy import GreedyTokenizer
from dllama_worker.tokenizer.opening import load_tokenizer
from tests.helpers.captures import CASES, GOLDEN, load

_RECORDED = json.loads((GOLDEN.parent / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
_FILES = {"demo": demo.TOKENIZER_PATH, "tiny": GOLDEN / "models" / "tiny.t"}
_NAMES = [*_FILES, *_RECORDED["vocabularies"]]
_BYTES = [bytes([byte]) for byte in range(1, 256)]


def _load(path: Path) -> GreedyTokenizer:
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer, GreedyTokenizer)
    return tokenizer


@cache
def _tokenizer(name: str) -> GreedyTokenizer:
    if name in _FILES:
        return _load(_FILES[name])
    recorded = _RECORDED["vocabularies"][name]
    after = recorded["after_bytes"]
    return GreedyTokenizer(
        TokenizerFile.of(
            [*_BYTES, *(bytes.fromhex(piece) for piece, _ in after)],
            [*([0.0] * 255), *(float(score) for _, score in after)],
            bos_id=recorded["bos_id"],
            eos_ids=recorded["eos_ids"],
            add_bos=recorded["add_bos"],
        )
    )


@pytest.mark.parametrize("name", _NAMES)
def test_texts_are_encoded_as_recorded(name: str) -> None:
    cases = [case for case in _RECORDED["encode"] if case["vocabulary"] == name]
    assert len(cases) > 40
    for case in cases:
        got = _tokenizer(name).encode_with_leftover(
            bytes.fromhex(case["text"]), is_start=case["is_start"], special=case["special"]
        )
        assert got == (case["tokens"], case["leftover"]), case


@pytest.mark.parametrize("name", _NAMES)
def test_tokens_are_decoded_as_recorded(name: str) -> None:
    cases = [case for case in _RECORDED["decode"] if case["vocabulary"] == name]
    assert len(cases) > 15
    decoder = _tokenizer(name).decoder()
    for case in cases:
        decoder.reset()
        pieces = [decoder.decode(token) for token in case["tokens"]]
        assert [piece.hex() if piece else None for piece in pieces] == case["pieces"], case


@pytest.mark.parametrize("case", CASES)
def test_recorded_sessions_have_the_same_tokens_and_pieces(case: str) -> None:
    session = load(case)
    tokenizer = _tokenizer("tiny")
    index: dict[str, Any] = session.index
    tokens, leftover = tokenizer.encode_with_leftover(session.info["prompt"])
    assert tokens == index["prompt_tokens"]
    assert leftover == index["token_evaluated_after_prompt"]
    decoder = tokenizer.decoder()
    pieces = [decoder.decode(token) for token in index["tokens"]]
    # The C++ program prints a tilde where there is no text yet.
    assert [(piece or b"~").hex() for piece in pieces] == index["pieces_hex"]
    assert [piece is not None for piece in pieces] == index["piece_was_complete"]


def test_an_empty_prompt_is_the_beginning_alone_or_nothing() -> None:
    assert _tokenizer("demo").encode("") == [510]
    assert _tokenizer("demo").encode("", is_start=False) == []
    assert _tokenizer("nested_specials").encode("") == []


def test_a_prompt_of_special_tokens_only() -> None:
    tokenizer = _tokenizer("demo")
    assert tokenizer.encode("</s><s></s>") == [510, 511, 510, 511]
    assert 511 not in tokenizer.encode("</s>", special=False)


def test_broken_utf8_is_tokens_too_and_comes_back() -> None:
    tokenizer = _tokenizer("demo")
    tokens = tokenizer.encode(b"\xff\xfea\x80\xc3", is_start=False)
    assert b"".join(tokenizer.vocabulary.pieces[token] for token in tokens) == b"\xff\xfea\x80\xc3"
    # What a shell passes on that is no UTF-8 arrives as surrogates.
    assert tokenizer.encode("\udcff", is_start=False) == tokenizer.encode(b"\xff", is_start=False)


def test_a_long_text_is_encoded_whole() -> None:
    tokenizer = load_tokenizer(demo.TOKENIZER_PATH)
    text = ("What light through yonder window breaks? It is the east, and Juliet is the sun. " * 130)[
        :10_000
    ]
    tokens = tokenizer.encode(text)
    assert b"".join(tokenizer.vocabulary.pieces[token] for token in tokens[1:]) == text.encode()


def test_a_byte_without_a_token_is_named() -> None:
    file = TokenizerFile.of([b"a", b"bc", b"<s>"], [0.0] * 3, bos_id=2, eos_ids=[2])
    tokenizer = GreedyTokenizer(file)
    assert tokenizer.encode("abc", is_start=False) == [0, 1]
    for text, shown in (("az", "7a"), ("ab", "62"), ("b" * 50, "62 62 62 62")):
        with pytest.raises(UsageError, match=f"no token for the bytes {shown} of the text"):
            tokenizer.encode(text)
    with pytest.raises(UsageError, match="NUL at byte 1"):
        tokenizer.encode("a\0")
    with pytest.raises(UsageError, match="cannot be encoded"):
        tokenizer.encode("\ud800")


def test_a_token_that_is_none_is_refused() -> None:
    decoder = _tokenizer("demo").decoder()
    for token in (-1, 512):
        with pytest.raises(ValueError, match=f"token {token} is not one of 512"):
            decoder.decode(token)


def test_bytes_that_never_become_a_character_do_not_pile_up() -> None:
    tokenizer = _tokenizer("demo")
    decoder = tokenizer.decoder()
    stray = tokenizer.encode(b"\x80", is_start=False)[0]
    pieces = [decoder.decode(stray) for _ in range(1000)]
    assert set(pieces) == {None, "\ufffd".encode()}
    assert pieces.count(None) < 1000


def test_end_tokens_are_known() -> None:
    tokenizer = _tokenizer("demo")
    assert list(tokenizer.vocabulary.eos_ids) == [511]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read as a tokenizer: No such file"), (b"x", r"TokenizerFile\.magic at byte 0")],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "odd.t"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"odd\.t: {reason}"):
        load_tokenizer(path)


def _merge_as_defined(tokenizer: GreedyTokenizer, tokens: list[int]) -> list[int]:
    """Merge by looking at all pairs each time, which is what the heap must be equal to."""
    file = tokenizer._file
    regular = {piece: token for token, piece in enumerate(file.pieces[: file.bos_id])}
    while True:
        pairs = [
            (file.scores[union], -i, union)
            for i in range(len(tokens) - 1)
            if (union := regular.get(file.pieces[tokens[i]] + file.pieces[tokens[i + 1]])) is not None
        ]
        if not pairs:
            return tokens
        _, at, union = max(pairs)
        tokens[-at : -at + 2] = [union]


@given(
    st.text("abc", max_size=40),
    st.lists(
        st.tuples(st.text("abc", min_size=2, max_size=4), st.integers(-3, 3)), unique_by=lambda p: p[0]
    ),
)
def test_merging_by_heap_is_merging_by_looking(text: str, unions: list[tuple[str, int]]) -> None:
    pieces = [b"a", b"b", b"c", *(piece.encode() for piece, _ in unions), b"<s>"]
    scores = [0.0, 0.0, 0.0, *(float(score) for _, score in unions), 0.0]
    tokenizer = GreedyTokenizer(TokenizerFile.of(pieces, scores, bos_id=len(pieces) - 1, eos_ids=[]))
    expected = _merge_as_defined(tokenizer, [b"abc".index(byte) for byte in text.encode()])
    assert tokenizer.encode(text, is_start=False) == expected


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    tokenizer = _tokenizer("demo")
    decoder = tokenizer.decoder()
    pieces = [decoder.decode(token) for token in tokenizer.encode(text, special=False)]
    assert b"".join(piece or b"" for piece in pieces) == text.encode()


@given(st.binary(max_size=30))
def test_what_is_complete_is_valid_in_structure_and_nothing_is_invented(data: bytes) -> None:
    text, rest = complete_utf8(data)
    assert text.decode("utf-8", "replace").count("\ufffd") <= len(data)
    assert data.partition(b"\0")[0].endswith(rest)
    assert complete_utf8(text) == (text, b"")


def test_the_demo_tokenizer_is_what_the_package_says() -> None:
    file = decode_tokenizer(demo.TOKENIZER_PATH.read_bytes())
    assert file.vocab_size == 512
    assert not file.chat_template
