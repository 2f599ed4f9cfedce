"""How models part a text before its bytes are merged: rules by the names that GGUF files have for them.

The patterns are facts of each model's own ``tokenizer.json``; a text of thousands of bytes is otherwise merged
across words, and other tokens come out than those that the model was trained with. Names: llama.cpp's
``llama-vocab.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["SPLIT_RULES", "SplitRule"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased_words(end: str) -> str:
    """Words part where lower case is followed by upper case."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{_UPPER}*{_LOWER}+{end}|{start}{_UPPER}+{_LOWER}*{end}"


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Patterns that part a text one after another, each what the one before left.

    ``nfc`` composes characters first. With ``whole_first`` a part that is a token stays one, whatever the merges
    say. ``prefix_space`` puts a space before a text, and before what follows a special token.
    """

    patterns: tuple[str, ...] = ()
    nfc: bool = False
    whole_first: bool = False
    prefix_space: bool = False


_LLAMA3 = SplitRule(("|".join((_CONTRACTIONS, _WORDS, r"\p{N}{1,3}", _SIGNS, _REST)),), whole_first=True)
_QWEN2 = SplitRule(("|".join((_CONTRACTIONS, _WORDS, r"\p{N}", _SIGNS, _REST)),), nfc=True)
_GPT_2 = SplitRule((_GPT2,))
_SMOLLM = SplitRule((r"\p{N}", _GPT2))
_GPT_4O = SplitRule(
    ("|".join((_cased_words(_CONTRACTIONS + "?"), r"\p{N}{1,3}", _SIGNS_AND_SLASHES, _REST)),),
    whole_first=True,
)
_TEKKEN = SplitRule(("|".join((_cased_words(""), r"\p{N}", _SIGNS_AND_SLASHES, _REST)),), whole_first=True)
_DBRX = SplitRule(("|".join((r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", _WORDS, r"\p{N}{1,3}", _SIGNS, _REST)),))
_DEEPSEEK_V3 = SplitRule(
    (
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|" + _REST,
    )
)

#: The rules of byte-level vocabularies, by ``tokenizer.ggml.pre``.
SPLIT_RULES: Mapping[str, SplitRule] = MappingProxyType(
    {
        "llama-bpe": _LLAMA3,
        "llama3": _LLAMA3,
        "llama-v3": _LLAMA3,
        "falcon3": _LLAMA3,
        "pixtral": _TEKKEN,
        "tekken": _TEKKEN,
        "qwen2": _QWEN2,
        "deepseek-r1-qwen": SplitRule(_QWEN2.patterns),
        "gpt-2": _GPT_2,
        "olmo": _GPT_2,
        "phi-2": _GPT_2,
        "smollm": _SMOLLM,
        "refact": _SMOLLM,
        "command-r": SplitRule(_SMOLLM.patterns, nfc=True),
        "dbrx": _DBRX,
        "smaug-bpe": _DBRX,
        "gpt-4o": _GPT_4O,
        "llama4": _GPT_4O,
        "deepseek-v3": _DEEPSEEK_V3,
    }
)
