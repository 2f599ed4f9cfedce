"""The .t file: there and back, and what is said about a broken one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_proto.errors import ProtocolError, RemoteProtocolError
from dllama_proto.schemas.tokenizer_file import TOKENIZER_FILE
from dllama_proto.tokenizer_file import TokenizerFile, TokenizerKey, decode_tokenizer, encode_tokenizer
from dllama_worker import demo
from tests.helpers.captures import GOLDEN

_FILES = [GOLDEN / "models" / "tiny.t", demo.TOKENIZER_PATH]

_KEYS = {
    TokenizerKey.BOS_ID: 2,
    TokenizerKey.VERSION: 1,
    TokenizerKey.VOCAB_SIZE: 4,
    TokenizerKey.MAX_TOKEN_LENGTH: 4,
    TokenizerKey.N_EOS_TOKENS: 1,
    TokenizerKey.ADD_BOS: 1,
}
_TOKENS = [(0.5, b"a"), (-1.0, b"ab"), (0.0, b"<s>"), (0.0, b"</s>")]


def _raw(
    pairs: Sequence[tuple[int, int]] = tuple(_KEYS.items()),
    *,
    after_header: bytes = struct.pack("<i", 3),
    tokens: Sequence[tuple[float, bytes]] = _TOKENS,
    magic: int = 0x567124,
    size: int | None = None,
) -> bytes:
    header = b"".join(struct.pack("<ii", *pair) for pair in pairs)
    body = b"".join(struct.pack("<fI", score, len(piece)) + piece for score, piece in tokens)
    return (
        struct.pack("<II", magic, 8 + len(header) if size is None else size) + header + after_header + body
    )


def _with(key: TokenizerKey, value: int) -> list[tuple[int, int]]:
    return list((_KEYS | {key: value}).items())


def _fault(data: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_tokenizer(data)
    return caught.value


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_recorded_files_come_back_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()
    tokenizer = decode_tokenizer(data)
    assert encode_tokenizer(tokenizer) == data
    assert tokenizer.vocab_size == 512
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.add_bos) == (510, (511,), True)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_the_schema_says_the_same_as_the_walk(path: Path) -> None:
    data = path.read_bytes()
    walked = decode_tokenizer(data)
    lengths = {"n_skipped": 0, "n_template": 0, "n_eos": 1, "n_tokens": walked.vocab_size}
    parsed = TOKENIZER_FILE.parse(data, **lengths)
    assert tuple(token.piece for token in parsed.tokens) == walked.pieces
    assert tuple(token.score for token in parsed.tokens) == walked.scores
    assert tuple(parsed.eos_ids) == walked.listed_eos_ids
    assert TOKENIZER_FILE.build(parsed, **lengths) == data


def test_all_parts_are_kept_and_end_tokens_are_in_the_order_of_c_plus_plus() -> None:
    pairs = [
        (TokenizerKey.EOS_ID, 1),
        *_with(TokenizerKey.N_EOS_TOKENS, 2),
        (TokenizerKey.CHAT_EOS_ID, 0),
        (TokenizerKey.PAD_ID, -1),
        (TokenizerKey.CHAT_STOP, 3),
        (TokenizerKey.CHAT_TEMPLATE, 5),
    ]
    data = _raw(pairs, after_header=b"xyz{{a}}"[:8] + struct.pack("<ii", 3, 2))
    tokenizer = decode_tokenizer(data)
    assert tokenizer.skipped == b"xyz"
    assert tokenizer.chat_template == b"{{a}}"
    assert tokenizer.eos_ids == (1, 0, 3, 2)
    assert encode_tokenizer(tokenizer) == data


def test_add_bos_is_taken_for_granted_in_files_that_do_not_say() -> None:
    without = [pair for pair in _KEYS.items() if pair[0] is not TokenizerKey.ADD_BOS]
    assert decode_tokenizer(_raw(without)).add_bos
    assert not decode_tokenizer(_raw(_with(TokenizerKey.ADD_BOS, 0))).add_bos


def test_a_vocabulary_becomes_a_file_that_decodes_to_it() -> None:
    made = TokenizerFile.of(
        [b"a", b"b", b"<s>", b"</s>"], [0.0, 1.5, 0.0, 0.0], bos_id=2, eos_ids=[3], chat_template=b"{{x}}"
    )
    assert decode_tokenizer(encode_tokenizer(made)) == made
    assert made.max_token_length == 4
    assert made.chat_template == b"{{x}}"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"", "TokenizerFile.magic"),
        (_raw(magic=0x567123), "TokenizerFile.magic"),
        (_raw(magic=1), "TokenizerFile.magic"),
        (_raw(size=9), "TokenizerFile.header_size"),
        (_raw(size=2**31), "TokenizerFile.header_size"),
        (_raw()[:30], "TokenizerFile.pairs"),
        (_raw([*_KEYS.items(), (11, 0)]), "TokenizerFile.pairs[6].key"),
        (_raw(_with(TokenizerKey.VERSION, 2)), "TokenizerFile.version"),
        (_raw(_with(TokenizerKey.VOCAB_SIZE, 0)), "TokenizerFile.vocab_size"),
        (_raw(_with(TokenizerKey.MAX_TOKEN_LENGTH, 0)), "TokenizerFile.max_token_length"),
        (_raw(_with(TokenizerKey.MAX_TOKEN_LENGTH, 3)), "TokenizerFile.tokens[3].length"),
        (_raw(_with(TokenizerKey.BOS_ID, 4)), "TokenizerFile.bos_id"),
        (_raw(_with(TokenizerKey.BOS_ID, -1)), "TokenizerFile.bos_id"),
        (_raw(_with(TokenizerKey.EOS_ID, 4)), "TokenizerFile.eos_id"),
        (_raw(_with(TokenizerKey.CHAT_TEMPLATE, 2**31 - 1)), "TokenizerFile.chat_template"),
        (_raw(_with(TokenizerKey.CHAT_STOP, -5)), "TokenizerFile.chat_stop"),
        (_raw(_with(TokenizerKey.CHAT_STOP, 2**31 - 1)), "TokenizerFile.skipped"),
        (_raw(_with(TokenizerKey.N_EOS_TOKENS, 2**31 - 1)), "TokenizerFile.eos_ids"),
        (_raw(after_header=struct.pack("<i", 4)), "TokenizerFile.eos_ids[0]"),
        (_raw(_with(TokenizerKey.VOCAB_SIZE, 2**31 - 1)), "TokenizerFile.tokens[4]"),
        (_raw(_with(TokenizerKey.VOCAB_SIZE, 3)), "TokenizerFile"),
        (_raw()[:-1], "TokenizerFile.tokens[3].piece"),
        (_raw(tokens=[*_TOKENS[:3], (0.0, b"")]), "TokenizerFile.tokens[3].length"),
        (_raw(tokens=[(float("nan"), b"a"), *_TOKENS[1:]]), "TokenizerFile.tokens[0].score"),
    ],
)
def test_a_broken_file_names_the_field(data: bytes, path: str) -> None:
    assert _fault(data).path == path


@pytest.mark.parametrize(
    "key",
    [TokenizerKey.BOS_ID, TokenizerKey.VERSION, TokenizerKey.VOCAB_SIZE, TokenizerKey.MAX_TOKEN_LENGTH],
)
def test_what_no_tokenizer_can_do_without_is_required(key: TokenizerKey) -> None:
    fault = _fault(_raw([pair for pair in _KEYS.items() if pair[0] is not key]))
    assert (fault.path, fault.got) == (f"TokenizerFile.{key.name.lower()}", "no such key")


def test_a_value_is_named_with_its_offset() -> None:
    fault = _fault(_raw(_with(TokenizerKey.BOS_ID, 9)))
    assert (fault.offset, fault.got) == (12, "9")


@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda body: _raw()[:8] + body))
def test_any_bytes_give_a_tokenizer_or_a_protocol_error(data: bytes) -> None:
    try:
        tokenizer = decode_tokenizer(data)
    except ProtocolError:
        return
    assert encode_tokenizer(tokenizer) == data


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_gives_a_tokenizer_or_a_protocol_error(at: int, damage: bytes) -> None:
    data = bytearray(_raw())
    data[at : at + len(damage)] = damage
    try:
        tokenizer = decode_tokenizer(bytes(data))
    except ProtocolError:
        return
    assert encode_tokenizer(tokenizer) == bytes(data)
