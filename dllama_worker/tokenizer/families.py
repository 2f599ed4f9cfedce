"""Whose vocabulary a .t file has: it does not say how its model parts texts, but its special tokens tell.

The C++ program merges across words, so the tokens of 3 to 6 % of a text, and more of code, are not those that the
model was trained with. Parted by the model's own rule first, the same merges give the model's tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import takewhile
from typing import Any

from dllama_proto.tokenizer_file import TokenizerFile
from dllama_worker.tokenizer.greedy import GreedyTokenizer, text_bytes
from dllama_worker.tokenizer.interface import Tokenizer
from dllama_worker.tokenizer.library import has_library, import_library
from dllama_worker.tokenizer.split_rules import SPLIT_RULES, SplitRule

__all__ = ["PartedTokenizer", "needs_library", "recognise_rule", "tokenizer_of"]

#: Pieces that together are one family's, and the name of its rule; the first that fits counts.
_MARKS: tuple[tuple[frozenset[bytes], str], ...] = (
    (frozenset({"<\uff5cplace\u2581holder\u2581no\u25810\uff5c>".encode()}), "deepseek-v3"),
    (frozenset({b"<|channel|>", b"<|message|>", b"<|return|>"}), "gpt-4o"),
    (frozenset({b"<|header_start|>", b"<|eot|>"}), "llama4"),
    (frozenset({b"<|begin_of_text|>", b"<|eot_id|>"}), "llama-bpe"),
    (frozenset({b"<|im_start|>", b"<|im_sep|>"}), "dbrx"),
    (frozenset({b"<|im_start|>", b"<|im_end|>", b"<|object_ref_start|>"}), "qwen2"),
    (frozenset({b"<|im_start|>", b"<|im_end|>", b"<repo_name>"}), "smollm"),
    (frozenset({b"<|im_start|>", b"<|im_end|>", b"<gh_stars>"}), "smollm"),
    (frozenset({b"[INST]", b"[TOOL_CALLS]", b"[SUFFIX]"}), "tekken"),
    (frozenset({b"<|START_OF_TURN_TOKEN|>", b"<|END_OF_TURN_TOKEN|>"}), "command-r"),
    (frozenset({b"[gMASK]", b"<sop>"}), "glm4"),
)

#: So begin the vocabularies that Llama 2 and Mistral have of SentencePiece; their words begin with a space.
_SENTENCE_PIECE = (b"<unk>", b"<s>", b"</s>")

_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")
_SPECIAL = re.compile(rb"[<\[][^\s]{1,62}[>\]]")


def recognise_rule(file: TokenizerFile) -> SplitRule | None:
    """Return the rule by which the model of a vocabulary parts texts, None where it isn't known."""
    pieces = frozenset(piece for piece in file.pieces if piece[:1] in (b"<", b"["))
    rule = next((SPLIT_RULES[name] for marks, name in _MARKS if marks <= pieces), None)
    # Mistral's tekken begins so, too, but has no names for bytes.
    if file.pieces[: len(_SENTENCE_PIECE)] == _SENTENCE_PIECE and (rule is None or b"<0x00>" in pieces):
        return SplitRule(prefix_space=True)
    return rule


def needs_library(file: TokenizerFile) -> bool:
    """Tell whether a vocabulary's own tokens need the library ``tokenizers`` and it isn't there."""
    rule = recognise_rule(file)
    return rule is not None and bool(rule.patterns) and not has_library()


def tokenizer_of(file: TokenizerFile, *, cpp_tokens: bool = False) -> Tokenizer:
    """Return what gives a vocabulary's own tokens, or with ``cpp_tokens`` those of the C++ program.

    Where special tokens stand first, as Llama 2's and SmolLM2's do, all others would be special for C++, and texts
    would fall into bytes: here they are those of the vocabulary's first run of names in brackets, and of its last.
    Raises UsageError where its own tokens need a library that isn't there.
    """
    if cpp_tokens:
        return GreedyTokenizer(file)
    rule = recognise_rule(file)
    special = _special_at_both_ends(file) if file.bos_id < file.vocab_size // 2 else None
    if special is not None:
        file = replace(file, pieces=tuple(_byte_itself(piece) for piece in file.pieces))
    return GreedyTokenizer(file, special) if rule is None else PartedTokenizer(file, rule, special)


def _special_at_both_ends(file: TokenizerFile) -> frozenset[int]:
    def run(tokens: Iterable[int]) -> Iterable[int]:
        return takewhile(lambda token: _is_special(file.pieces[token]), tokens)

    return frozenset((*run(range(file.vocab_size)), *run(reversed(range(file.vocab_size))), file.bos_id))


def _is_special(piece: bytes) -> bool:
    return bool(_SPECIAL.fullmatch(piece)) and not _BYTE.fullmatch(piece)


def _byte_itself(piece: bytes) -> bytes:
    found = _BYTE.fullmatch(piece)
    return piece if found is None else bytes([int(found[1], 16)])


class PartedTokenizer(GreedyTokenizer):
    """A .t file's vocabulary, for texts that are parted by a rule before they are merged."""

    def __init__(
        self, file: TokenizerFile, rule: SplitRule, special: Collection[int] | None = None
    ) -> None:
        super().__init__(file, special)
        self._rule = rule
        self._splitter = _splitter(rule) if rule.patterns else None
        self._parts: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str | bytes, *, is_start: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text, each part's for itself. Raises UsageError."""
        data = text_bytes(text)
        tokens = [self._file.bos_id] if is_start and self._file.add_bos else []
        at = 0
        for start, stop, token in self.special_tokens(data) if special else ():
            self._encode_plain(data[at:start], tokens)
            if token != self._file.bos_id or len(tokens) != 1 or tokens[0] != token:
                tokens.append(token)
            at = stop
        self._encode_plain(data[at:], tokens)
        return tokens

    def cpp_leftover(self, text: str | bytes) -> int | None:
        """Return None: the C++ program has other tokens."""
        return None

    def _encode_plain(self, data: bytes, tokens: list[int]) -> None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            # What is no text has no words.
            tokens += self._merged(data)
            return
        if self._rule.nfc:
            text = unicodedata.normalize("NFC", text)
        if self._rule.prefix_space and text:
            text = " " + text
        for part in self._parts_of(text):
            found = self._parts.get(part)
            if found is None:
                found = self._parts[part] = tuple(self._encode_part(part.encode()))
                if len(self._parts) > _MAX_PARTS:
                    self._parts.clear()
            tokens += found

    def _encode_part(self, part: bytes) -> list[int]:
        if self._rule.prefix_space:
            return self.merge(
                [token for letter in part.decode() for token in self._letter(letter.encode())]
            )
        whole = self.regular_token(part) if self._rule.whole_first else None
        return [whole] if whole is not None else self._merged(part)

    def _merged(self, data: bytes) -> list[int]:
        return super().encode(data, is_start=False, special=False)

    def _letter(self, letter: bytes) -> Iterable[int]:
        """Return a character's token, or those of its bytes where it has none."""
        whole = self.regular_token(letter)
        return self._merged(letter) if whole is None else (whole,)

    def _parts_of(self, text: str) -> Iterable[str]:
        if self._splitter is None:
            return (text,)
        return (part for part, _ in self._splitter.pre_tokenize_str(text)) if text else ()


#: Parts whose tokens are remembered: texts say the same words over and over.
_MAX_PARTS = 1 << 16


def _splitter(rule: SplitRule) -> Any:
    library = import_library()
    return library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split(library.Regex(pattern), behavior="isolated")
            for pattern in rule.patterns
        ]
    )
