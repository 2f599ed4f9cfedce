"""The vocabulary in a GGUF file's metadata as a tokenizer that gives the model's own tokens.

Keys: ``tokenizer.ggml.*`` (llama.cpp's ``gguf-py``). ``gpt2`` is byte-level BPE, parted by the rule that ``pre``
names; ``llama`` is SentencePiece's BPE, whose merges follow from the scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.byte_level import bytes_of
from dllama_worker.tokenizer.chat_templates import gguf_templates
from dllama_worker.tokenizer.end_tokens import find_end_tokens
from dllama_worker.tokenizer.interface import Vocabulary
from dllama_worker.tokenizer.library import LibraryTokenizer, import_library
from dllama_worker.tokenizer.split_rules import SPLIT_RULES, SplitRule

__all__ = ["read_gguf_vocabulary"]

_KEY = "tokenizer.ggml."
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"


class _TokenType(IntEnum):
    """What a token is (llama.cpp's ``enum llama_token_type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def read_gguf_vocabulary(path: Path, metadata: Mapping[str, Any]) -> LibraryTokenizer:
    """Make the tokenizer of a GGUF file. Raises UsageError naming the file and the key that can't be."""
    values = _GgufKeys(path, metadata)
    kind = values.text("model")
    tokens = values.texts("tokens")
    types = values.types(len(tokens))
    adds_bos = kind == "llama"
    if kind == "gpt2":
        rule = _rule(values)
        adds_bos = rule.add_bos
        encoder = _byte_level(values, tokens, types, rule)
    elif kind == "llama":
        encoder = _sentence_piece(values, tokens, types)
    else:
        raise UsageError(
            f"{path}: has a vocabulary of kind {kind[:40]!r}, expected gpt2 or llama: give a tokenizer.json or .t "
            "file of the model with --tokenizer"
        )
    is_special = [of in (_TokenType.CONTROL, _TokenType.USER_DEFINED, _TokenType.UNKNOWN) for of in types]
    pieces = [
        token.encode("utf-8", "surrogateescape") if is_special[i] else _piece(kind, token, types[i])
        for i, token in enumerate(tokens)
    ]
    special = {token: i for i, token in enumerate(tokens) if is_special[i]}
    bos = values.token("bos_token_id", len(tokens))
    named = [values.token(key, len(tokens)) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    vocabulary = Vocabulary(
        tuple(pieces),
        bos,
        values.flag("add_bos_token", adds_bos),
        find_end_tokens((token for token in named if token is not None), special),
        gguf_templates(path, metadata, tokens),
    )
    return LibraryTokenizer(vocabulary, encoder)


def _piece(kind: str, token: str, of: int) -> bytes:
    if kind == "gpt2":
        return bytes_of(token)
    found = _BYTE.fullmatch(token) if of == _TokenType.BYTE else None
    if found is not None:
        return bytes([int(found[1], 16)])
    return token.replace(_SPACE, " ").encode("utf-8", "surrogateescape")


def _rule(values: _GgufKeys) -> SplitRule:
    pre = values.text("pre", "default")
    rule = SPLIT_RULES.get(pre)
    if rule is None:
        raise UsageError(
            f"{values.path}: parts texts by a rule {pre[:40]!r} that this program doesn't know "
            "(tokenizer.ggml.pre): give the model's tokenizer.json with --tokenizer"
        )
    return rule


def _byte_level(values: _GgufKeys, tokens: list[str], types: list[int], rule: SplitRule) -> Any:
    library = import_library()
    ids = _ids(values, tokens)
    encoder = _model(values, library, ids, list(_given_merges(values)), ignore_merges=rule.whole_first)
    if rule.nfc:
        encoder.normalizer = library.normalizers.NFC()
    encoder.pre_tokenizer = _splitter(library, rule)
    _add_special(library, encoder, tokens, types)
    return encoder


def _splitter(library: Any, rule: SplitRule) -> Any:
    parts = [
        library.pre_tokenizers.Split(library.Regex(pattern), behavior="isolated")
        for pattern in rule.patterns
    ]
    letters = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return library.pre_tokenizers.Sequence([*parts, letters])


def _sentence_piece(values: _GgufKeys, tokens: list[str], types: list[int]) -> Any:
    library = import_library()
    ids = _ids(values, tokens)
    unknown = next(
        (token for token, of in zip(tokens, types, strict=True) if of == _TokenType.UNKNOWN), None
    )
    merges = _merges_by_score(ids, values.numbers("scores", len(tokens)), types)
    encoder = _model(values, library, ids, merges, byte_fallback=True, fuse_unk=True, unk_token=unknown)
    spaces = library.normalizers.Replace(" ", _SPACE)
    if values.flag("add_space_prefix", True):
        encoder.normalizer = library.normalizers.Sequence([library.normalizers.Prepend(_SPACE), spaces])
    else:
        encoder.normalizer = spaces
    _add_special(library, encoder, tokens, types)
    return encoder


def _ids(values: _GgufKeys, tokens: list[str]) -> dict[str, int]:
    """Return the id of each text; of several with one text, the first, which llama.cpp takes, too."""
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        # The library has no lone surrogates: what is no UTF-8 can't be met in a text either.
        ids.setdefault(token.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), i)
    if not ids:
        raise UsageError(f"{values.path}: has a vocabulary without tokens")
    return ids


def _model(
    values: _GgufKeys, library: Any, ids: dict[str, int], merges: list[tuple[str, str]], **options: Any
) -> Any:
    # The library ends the process where a merge has parts or a union that are no tokens.
    wrong = next(
        (pair for pair in merges if pair[0] not in ids or pair[1] not in ids or "".join(pair) not in ids),
        None,
    )
    if wrong is not None:
        raise UsageError(
            f"{values.path}: tokenizer.ggml.merges: {' '.join(wrong)[:60]!r} has a part or a union that is no "
            "token"
        )
    try:
        return library.Tokenizer(library.models.BPE(ids, merges, **options))
    except Exception as error:
        raise UsageError(f"{values.path}: its vocabulary makes no tokenizer: {error}") from error


def _given_merges(values: _GgufKeys) -> Iterator[tuple[str, str]]:
    for merge in values.texts("merges"):
        # Parts never have spaces, but for the first letter of a few merges of spaces.
        left, separator, right = merge[:1] + merge[1:].partition(" ")[0], *merge[1:].partition(" ")[1:]
        if not separator:
            raise UsageError(
                f"{values.path}: tokenizer.ggml.merges: expected two parts, got {merge[:60]!r}"
            )
        yield left, right


def _merges_by_score(
    ids: Mapping[str, int], scores: list[float], types: list[int]
) -> list[tuple[str, str]]:
    """Return every pair of tokens whose union is a token, the best union first (SentencePiece's order)."""
    found = []
    for token, i in ids.items():
        if types[i] not in (_TokenType.NORMAL, _TokenType.USER_DEFINED, _TokenType.UNUSED):
            continue
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        known.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(-scores[i], pair) for pair in known]
    found.sort(key=lambda item: item[0])
    return [pair for _, pair in found]


def _add_special(library: Any, encoder: Any, tokens: list[str], types: list[int]) -> None:
    control, plain = [], []
    for token, of in zip(tokens, types, strict=True):
        if of in (_TokenType.CONTROL, _TokenType.UNKNOWN) and token:
            control.append(library.AddedToken(token, special=True, normalized=False))
        elif of == _TokenType.USER_DEFINED and token:
            plain.append(library.AddedToken(token, special=False, normalized=False))
    encoder.add_tokens(plain)
    encoder.add_special_tokens(control)


class _GgufKeys:
    """Typed values of the tokenizer's keys."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self._metadata = metadata

    def _refusal(self, key: str, expected: str, got: object) -> UsageError:
        return UsageError(f"{self.path}: {_KEY}{key}: expected {expected}, got {str(got)[:60]}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a word."""
        value = self._metadata.get(_KEY + key, default)
        if not isinstance(value, str):
            raise self._refusal(key, "a word", "none" if value is None else value)
        return value

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        value = self._metadata.get(_KEY + key)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._refusal(key, "a list of texts", "none" if value is None else type(value).__name__)
        return value

    def numbers(self, key: str, n: int) -> list[float]:
        """Return a list of numbers, one for each token."""
        value = self._metadata.get(_KEY + key)
        if (
            not isinstance(value, list)
            or len(value) != n
            or not all(type(x) in (int, float) for x in value)
        ):
            raise self._refusal(
                key, f"{n} numbers, one for each token", "none" if value is None else len(value)
            )
        return value

    def types(self, n: int) -> list[int]:
        """Return what each token is; all are normal where the file doesn't say."""
        if _KEY + "token_type" not in self._metadata:
            return [_TokenType.NORMAL] * n
        return [int(of) for of in self.numbers("token_type", n)]

    def token(self, key: str, n: int) -> int | None:
        """Return a token's id, or None."""
        value = self._metadata.get(_KEY + key)
        if value is not None and (type(value) is not int or not 0 <= value < n):
            raise self._refusal(key, f"a token from 0 to {n - 1}", value)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return yes or no."""
        value = self._metadata.get(_KEY + key, default)
        if not isinstance(value, bool):
            raise self._refusal(key, "true or false", value)
        return value
