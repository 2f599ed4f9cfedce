"""The .t tokenizer file as a record, and back to the same bytes.

Source: the constructor of C++ ``Tokenizer`` (``tokenizer.cpp``). Everything is checked against the size
of the file before it is taken. Stricter than C++ where its own behaviour would be undefined: ids must be
in the vocabulary, pieces must hold something and be no longer than the header says, scores must be
numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from dllama_proto.errors import RemoteProtocolError
from dllama_proto.file_kinds import HEAD_SIZE, recognise_file
from dllama_proto.formatting import counted
from dllama_proto.schemas.tokenizer_file import (
    TOKENIZER_HEADER,
    TOKENIZER_MAGIC,
    TOKENIZER_PAIR,
    TOKENIZER_PREFIX,
    TokenizerKey,
)

__all__ = ["TokenizerFile", "TokenizerKey", "decode_tokenizer", "encode_tokenizer", "read_tokenizer"]

#: The format before this one, which C++ still reads but no converter has written for long.
_OLD_MAGIC = 0x567123

_PREFIX_SIZE: int = TOKENIZER_PREFIX.sizeof()
_PAIR_SIZE: int = TOKENIZER_PAIR.sizeof()
_MAX_HEADER_SIZE = 4096

# Walked once a token, 150,000 times for a real vocabulary, so without construct.
_TOKEN_HEAD = struct.Struct("<fI")
_EOS_ID = struct.Struct("<i")


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A vocabulary and how to use it.

    ``pieces`` and ``scores`` are by token id. Tokens below ``bos_id`` are the regular vocabulary, those
    from it on the special one. ``eos_ids`` are all end tokens, in the order that C++ has them.
    ``chat_template`` is empty where there is none. ``pairs``, ``skipped`` and ``listed_eos_ids`` are what
    the file holds besides: the header as it stands, bytes that C++ steps over, and the ids of its end token
    list.
    """

    bos_id: int
    add_bos: bool
    eos_ids: tuple[int, ...]
    max_token_length: int
    chat_template: bytes
    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]
    pairs: tuple[tuple[TokenizerKey, int], ...]
    skipped: bytes
    listed_eos_ids: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.pieces)

    @classmethod
    def of(
        cls,
        pieces: Sequence[bytes],
        scores: Sequence[float],
        *,
        bos_id: int,
        eos_ids: Sequence[int],
        add_bos: bool = True,
        chat_template: bytes = b"",
    ) -> TokenizerFile:
        """Make a file's record from a vocabulary, with the keys a converter writes, in its order.

        Scores are rounded to float32. Raises RemoteProtocolError for what :func:`decode_tokenizer` would.
        """
        pairs = [
            (TokenizerKey.BOS_ID, bos_id),
            (TokenizerKey.VERSION, 1),
            (TokenizerKey.VOCAB_SIZE, len(pieces)),
            (TokenizerKey.MAX_TOKEN_LENGTH, max(map(len, pieces), default=0)),
            (TokenizerKey.N_EOS_TOKENS, len(eos_ids)),
            (TokenizerKey.ADD_BOS, int(add_bos)),
        ]
        if chat_template:
            pairs.insert(4, (TokenizerKey.CHAT_TEMPLATE, len(chat_template)))
        body = b"".join(
            _TOKEN_HEAD.pack(score, len(piece)) + piece for piece, score in zip(pieces, scores, strict=True)
        )
        eos = b"".join(map(_EOS_ID.pack, eos_ids))
        return decode_tokenizer(_header_bytes(pairs) + chat_template + eos + body)


def decode_tokenizer(data: bytes) -> TokenizerFile:
    """Decode a whole tokenizer file.

    Raises RemoteProtocolError naming the field and its offset.
    """
    pairs = _decode_header(data)
    lengths = _Lengths.of(pairs)
    at = _PREFIX_SIZE + _PAIR_SIZE * len(pairs)
    skipped, at = _take(data, at, lengths.skipped, "TokenizerFile.skipped")
    template, at = _take(data, at, lengths.template, "TokenizerFile.chat_template")
    eos_start = at
    eos_bytes, at = _take(data, at, lengths.eos * _EOS_ID.size, "TokenizerFile.eos_ids")
    listed = tuple(int(eos_id) for (eos_id,) in _EOS_ID.iter_unpack(eos_bytes))
    pieces, scores = _decode_tokens(data, at, lengths)
    for i, eos_id in enumerate(listed):
        if not 0 <= eos_id < lengths.vocab:
            raise RemoteProtocolError(
                f"TokenizerFile.eos_ids[{i}]",
                expected=f"a token id below {lengths.vocab}",
                got=str(eos_id),
                offset=eos_start + i * _EOS_ID.size,
            )
    return TokenizerFile(
        bos_id=lengths.bos_id,
        add_bos=lengths.add_bos,
        eos_ids=lengths.header_eos_ids + listed,
        max_token_length=lengths.max_token,
        chat_template=template,
        pieces=pieces,
        scores=scores,
        pairs=pairs,
        skipped=skipped,
        listed_eos_ids=listed,
    )


def read_tokenizer(file: IO[bytes]) -> TokenizerFile:
    """Read a tokenizer file from its beginning; of another kind of file, which may be huge, only the first bytes.

    Raises RemoteProtocolError naming the field and its offset, OSError.
    """
    head = file.read(HEAD_SIZE)
    _check_magic(head)
    return decode_tokenizer(head + file.read())


def encode_tokenizer(tokenizer: TokenizerFile) -> bytes:
    """Encode a whole tokenizer file: the bytes it was decoded from."""
    parts = [_header_bytes(tokenizer.pairs), tokenizer.skipped, tokenizer.chat_template]
    parts += map(_EOS_ID.pack, tokenizer.listed_eos_ids)
    for piece, score in zip(tokenizer.pieces, tokenizer.scores, strict=True):
        parts += (_TOKEN_HEAD.pack(score, len(piece)), piece)
    return b"".join(parts)


def _header_bytes(pairs: Sequence[tuple[int, int]]) -> bytes:
    named = [{"key": int(key), "value": value} for key, value in pairs]
    return bytes(TOKENIZER_HEADER.build({"pairs": named}))


def _decode_header(data: bytes) -> tuple[tuple[TokenizerKey, int], ...]:
    header_size = _check_magic(data)
    n_pair_bytes = header_size - _PREFIX_SIZE
    if not 0 <= n_pair_bytes <= _MAX_HEADER_SIZE or n_pair_bytes % _PAIR_SIZE:
        raise RemoteProtocolError(
            "TokenizerFile.header_size",
            expected=f"{_PREFIX_SIZE} and a multiple of {_PAIR_SIZE}, at most {_MAX_HEADER_SIZE}",
            got=str(header_size),
            offset=4,
        )
    header, _ = _take(data, 0, header_size, "TokenizerFile.pairs")
    pairs = []
    for i, pair in enumerate(TOKENIZER_HEADER.parse(header).pairs):
        try:
            pairs.append((TokenizerKey(pair.key), int(pair.value)))
        except ValueError:
            raise RemoteProtocolError(
                f"TokenizerFile.pairs[{i}].key",
                expected=f"a key from 0 to {max(TokenizerKey)}",
                got=str(pair.key),
                offset=_PREFIX_SIZE + i * _PAIR_SIZE,
                hint="the file is newer than this program, or damaged",
            ) from None
    return tuple(pairs)


def _check_magic(data: bytes) -> int:
    """Return the size of the header that a file has, by its first bytes. Raises RemoteProtocolError."""
    head, _ = _take(data, 0, _PREFIX_SIZE, "TokenizerFile.magic")
    prefix = TOKENIZER_PREFIX.parse(head)
    if prefix.magic == TOKENIZER_MAGIC:
        return int(prefix.header_size)
    old = prefix.magic == _OLD_MAGIC
    kind = None if old else recognise_file(data)
    if old:
        hint = "an old tokenizer format, convert the tokenizer again"
    else:
        hint = "not a tokenizer file" + ("" if kind is None else f": {kind.advice}")
    raise RemoteProtocolError(
        "TokenizerFile.magic",
        expected=f"{TOKENIZER_MAGIC:#x}",
        got=f"{prefix.magic:#x}" if kind is None else kind.name,
        offset=0,
        hint=hint,
    )


#: Lowest value of each key; the others are not looked at.
_LOWEST = {
    TokenizerKey.VERSION: 1,
    TokenizerKey.VOCAB_SIZE: 1,
    TokenizerKey.MAX_TOKEN_LENGTH: 1,
    TokenizerKey.BOS_ID: 0,
    TokenizerKey.EOS_ID: 0,
    TokenizerKey.CHAT_EOS_ID: 0,
    TokenizerKey.CHAT_TEMPLATE: 0,
    TokenizerKey.CHAT_STOP: 0,
    TokenizerKey.N_EOS_TOKENS: 0,
}
_TOKEN_IDS = (TokenizerKey.BOS_ID, TokenizerKey.EOS_ID, TokenizerKey.CHAT_EOS_ID)


@dataclass(frozen=True, slots=True)
class _Lengths:
    """What the header's pairs say, checked against each other; lengths not yet against the file."""

    vocab: int
    max_token: int
    bos_id: int
    add_bos: bool
    skipped: int
    template: int
    eos: int
    header_eos_ids: tuple[int, ...]

    @classmethod
    def of(cls, pairs: tuple[tuple[TokenizerKey, int], ...]) -> _Lengths:
        # A key that comes twice counts as it comes last, as in C++, but for those that add up.
        last = dict(pairs)
        for key in (
            TokenizerKey.VERSION,
            TokenizerKey.VOCAB_SIZE,
            TokenizerKey.MAX_TOKEN_LENGTH,
            TokenizerKey.BOS_ID,
        ):
            if key not in last:
                raise RemoteProtocolError(
                    f"TokenizerFile.{key.name.lower()}", expected="a value", got="no such key"
                )
        vocab = last[TokenizerKey.VOCAB_SIZE]
        for i, (key, value) in enumerate(pairs):
            lowest, highest, expected = _LOWEST.get(key, value), value, f"at least {_LOWEST.get(key)}"
            if key in _TOKEN_IDS and vocab >= 1:
                highest, expected = vocab - 1, f"a token id below {vocab}"
            elif key is TokenizerKey.VERSION:
                highest, expected = 1, "1"
            if not lowest <= value <= highest:
                raise RemoteProtocolError(
                    f"TokenizerFile.{key.name.lower()}",
                    expected=expected,
                    got=str(value),
                    offset=_PREFIX_SIZE + i * _PAIR_SIZE + 4,
                )
        return cls(
            vocab=vocab,
            max_token=last[TokenizerKey.MAX_TOKEN_LENGTH],
            bos_id=last[TokenizerKey.BOS_ID],
            # C++ leaves it uninitialised where the key is missing; files that old always began with bos.
            add_bos=last.get(TokenizerKey.ADD_BOS, 1) == 1,
            skipped=sum(value for key, value in pairs if key is TokenizerKey.CHAT_STOP),
            template=last.get(TokenizerKey.CHAT_TEMPLATE, 0),
            eos=last.get(TokenizerKey.N_EOS_TOKENS, 0),
            header_eos_ids=tuple(
                value for key, value in pairs if key in (TokenizerKey.EOS_ID, TokenizerKey.CHAT_EOS_ID)
            ),
        )


def _take(data: bytes, start: int, length: int, path: str) -> tuple[bytes, int]:
    """Return ``length`` bytes from ``start`` and where they end."""
    end = start + length
    if end > len(data):
        raise RemoteProtocolError(
            path,
            expected=counted(length, "byte"),
            got=f"{len(data) - start}, {counted(end - len(data), 'byte')} missing",
            offset=start,
            hint="the file is truncated",
        )
    return data[start:end], end


def _decode_tokens(
    data: bytes, start: int, lengths: _Lengths
) -> tuple[tuple[bytes, ...], tuple[float, ...]]:
    """Return pieces and scores. Raises RemoteProtocolError where they do not fill the file exactly."""
    pieces: list[bytes] = []
    scores: list[float] = []
    at, size = start, len(data)
    while len(pieces) < lengths.vocab:
        path = f"TokenizerFile.tokens[{len(pieces)}]"
        if at + _TOKEN_HEAD.size > size:
            _take(data, at, _TOKEN_HEAD.size, path)
        score, length = _TOKEN_HEAD.unpack_from(data, at)
        if not 1 <= length <= lengths.max_token:
            raise RemoteProtocolError(
                f"{path}.length", expected=f"1 to {lengths.max_token}", got=str(length), offset=at + 4
            )
        if score != score:
            raise RemoteProtocolError(f"{path}.score", expected="a number", got="NaN", offset=at)
        at += _TOKEN_HEAD.size
        if at + length > size:
            _take(data, at, length, f"{path}.piece")
        pieces.append(data[at : at + length])
        scores.append(score)
        at += length
    if at != size:
        raise RemoteProtocolError(
            "TokenizerFile",
            expected=f"its end after {at} bytes",
            got=f"{counted(size - at, 'byte')} more",
            offset=at,
        )
    return tuple(pieces), tuple(scores)
