r"""How models split a text before they merge: the patterns of their pre-tokenizers, by the names that GGUF uses.

A GGUF file says only the name (``tokenizer.ggml.pre``); the patterns are those of the models' ``tokenizer.json``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SPLIT_RULES", "SplitRule"]


@dataclass(frozen=True, slots=True)
class SplitRule:
    r"""How a text becomes the pieces within which tokens are merged.

    ``patterns`` apply one after another, each within the pieces of the one before; what they match is a piece, and
    so is what lies between. ``nfc``: characters are composed first (Unicode NFC). ``whole_first``: a piece that is
    a token is one, whatever would merge (``ignore_merges``). ``add_bos``: a context begins with the beginning
    token, unless the file says otherwise. ``prefix_space``: a space is put before a text, and before what follows
    a special token.
    """

    patterns: tuple[str, ...] = ()
    nfc: bool = False
    whole_first: bool = False
    add_bos: bool = False
    prefix_space: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_NEWLINES_AND_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"

_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_NEWLINES_AND_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_SYMBOLS}|{_NEWLINES_AND_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_NEWLINES_AND_SPACES}"
)

_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s|%s"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_NEWLINES_AND_SPACES}"
)
_O200K = _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", r"\p{N}{1,3}")
_TEKKEN = _CASED % ("", "", r"\p{N}")

_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_NEWLINES_AND_SPACES}",
)
_DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)
#: Letters of scripts that have capitals, as the makers of DeepSeek LLM list them.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102"
    "\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_DEEPSEEK_LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}+",
)
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED_CODER = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    _CASED % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", r"\p{N}"),
)
_EXAONE_MOE = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_MINICPM5 = (
    r"\p{N}{1,3}",
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}+|{_SYMBOLS}|{_NEWLINES_AND_SPACES}",
)
_SPARK = (
    *_DEEPSEEK_V3[:2],
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
    r"\p{N}",
)
_FALCON = (r"[\p{P}$+<=>^~|`]+", _GPT_2, r"[0-9][0-9][0-9]")
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT_2, r"\p{N}+", r"[0-9][0-9][0-9]")
_DIGITS_FIRST = (r"\p{N}", _GPT_2)
_LINES = ("[^\n]+|[\n]+",)

_LLAMA_3 = SplitRule((_CL100K,), whole_first=True, add_bos=True)
_GPT_2_RULE = SplitRule((_GPT_2,))
_NEOX_RULE = SplitRule((_GPT_2,), nfc=True)
_QWEN2_RULE = SplitRule((_QWEN2,), nfc=True)
_DIGITS_RULE = SplitRule(_DIGITS_FIRST)
_O200K_RULE = SplitRule((_O200K,), whole_first=True)
_DEEPSEEK_V3_RULE = SplitRule(_DEEPSEEK_V3)

#: By the value of ``tokenizer.ggml.pre``.
SPLIT_RULES = {
    "a.x-4.0": _GPT_2_RULE,
    "bailingmoe": SplitRule((_BAILING,)),
    "bailingmoe2": SplitRule((_BAILING,)),
    "chatglm-bpe": SplitRule((_CL100K,)),
    "codeshell": _DIGITS_RULE,
    "command-r": SplitRule(_DIGITS_FIRST, nfc=True),
    "dbrx": SplitRule((_CL100K,)),
    "deepseek-coder": SplitRule(_DEEPSEEK_CODER),
    "deepseek-llm": SplitRule(_DEEPSEEK_LLM),
    "deepseek-r1-qwen": _QWEN2_RULE,
    "deepseek-v3": _DEEPSEEK_V3_RULE,
    "default": SplitRule(_DEFAULT),
    "exaone": _DIGITS_RULE,
    "exaone-moe": SplitRule((_EXAONE_MOE,)),
    "exaone4": _GPT_2_RULE,
    "f2llmv2": _QWEN2_RULE,
    "falcon": SplitRule(_FALCON),
    "falcon-h1": _LLAMA_3,
    "falcon3": _LLAMA_3,
    "gigachat": _GPT_2_RULE,
    "glm4": SplitRule((_CL100K,), whole_first=True),
    "glm5": SplitRule((_CL100K,), whole_first=True),
    "gpt-2": _GPT_2_RULE,
    "gpt-4o": _O200K_RULE,
    "granite-docling": _GPT_2_RULE,
    "grok-2": SplitRule((_QWEN2,)),
    "hunyuan": SplitRule((_QWEN2,)),
    "hunyuan-dense": _DEEPSEEK_V3_RULE,
    "hy_v4": _DEEPSEEK_V3_RULE,
    "jais": _GPT_2_RULE,
    "joyai-llm": _DEEPSEEK_V3_RULE,
    "kanana2": _O200K_RULE,
    "kormo": _QWEN2_RULE,
    "laguna": SplitRule((*_LINES, _QWEN2)),
    "lfm2": _LLAMA_3,
    "llada-moe": SplitRule((_BAILING,)),
    "llama-bpe": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama4": _O200K_RULE,
    "megrez": SplitRule((_QWEN2,)),
    "mellum": _GPT_2_RULE,
    "mellum2": _DIGITS_RULE,
    "midm-2.0": _LLAMA_3,
    "minicpm5": SplitRule(_MINICPM5, whole_first=True),
    "minerva-7b": _DIGITS_RULE,
    "minimax-m2": SplitRule((_O200K,)),
    "mpt": _NEOX_RULE,
    "olmo": _NEOX_RULE,
    "phi-2": _GPT_2_RULE,
    "pixtral": _LLAMA_3,
    "qwen2": _QWEN2_RULE,
    "qwen35": SplitRule((_QWEN35,)),
    "refact": _DIGITS_RULE,
    "seed-coder": SplitRule((_SEED_CODER,)),
    "smaug-bpe": SplitRule((_CL100K,)),
    "smollm": _DIGITS_RULE,
    "solar-open": SplitRule((_QWEN2,)),
    "spark2_5": SplitRule(_SPARK),
    "stablelm2": SplitRule((_QWEN2,)),
    "starcoder": _DIGITS_RULE,
    "talkie": _O200K_RULE,
    "tekken": SplitRule((_TEKKEN,), whole_first=True, add_bos=True),
    "trillion": _GPT_2_RULE,
    "youtu": SplitRule(_YOUTU, whole_first=True),
}
