# ruff: noqa: RUF001 # texts in many scripts
"""Whether this program's tokens are a model's own: any texts, by every way in which a vocabulary can come.

    python benchmarks/tokens.py FOLDER...

Each folder has a model's ``tokenizer.json`` and what stands beside it. The library ``tokenizers`` says what is
right; held against it are the folder itself, the same vocabulary as a GGUF file has it, and as a .t file.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from dllama_proto.tokenizer_file import TokenizerFile
from dllama_worker.errors import UsageError
from dllama_worker.tokenizer.families import tokenizer_of
from dllama_worker.tokenizer.folder import read_folder
from dllama_worker.tokenizer.gguf_vocabulary import read_gguf_vocabulary
from dllama_worker.tokenizer.interface import Tokenizer
from dllama_worker.tokenizer.split_rules import SPLIT_RULES

_SEED = 7


def texts(special: list[str]) -> Iterator[tuple[str, str]]:
    """Yield texts of many kinds, each with its name."""
    rng = random.Random(_SEED)  # noqa: S311 # the same texts each time
    source = Path(sysconfig.get_path("stdlib"))
    for name in ("json/decoder.py", "ast.py", "heapq.py", "textwrap.py", "this.py", "socket.py"):
        yield f"code {name}", (source / name).read_text()
    yield "indented code", "def f():\n    if x:\n\t\treturn {\n            'a':   1,\n    }\n\n\n" * 3
    yield "C", "for(int i=0;i<n;++i){a[i]=b[i]<<2;}//done\r\n#include <stdio.h>\n" * 3
    yield "HTML", "<div class=\"x\"><a href='https://example.org/?q=1&r=2'>Link</a></div>\n" * 2
    yield (
        "English",
        "It's the Judge's 3rd verdict; they'll say we've won, I'd think. Don't SHOUT: WE'RE OK!",
    )
    yield "upper contractions", "IT'S I'LL WE'VE THEY'D camelCaseWords HTMLParser iPhone15 McDonald"
    yield "digits", "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 2026-11-27 0x7fff 1e-5"
    yield "spaces", " a  b   c    d     e\t\tf\n g\n\n h\n\n\n i \n  \n   j   "
    for n in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144):
        yield f"{n} spaces", " " * n + "x" + " " * n
        yield f"{n} line breaks", "\n" * n + "x" + "\r\n" * n
    yield "Chinese", "今天天气很好，我们去公园散步吧。2026年11月27日，星期五。"
    yield "Japanese", "吾輩は猫である。名前はまだ無い。カタカナとひらがな、そして漢字。"
    yield "Korean", "안녕하세요, 오늘 날씨가 정말 좋네요. 한국어 문장입니다."
    yield "Arabic", "السلام عليكم ورحمة الله وبركاته، كيف حالك اليوم؟"
    yield "Hebrew", "שלום עולם, מה שלומך היום?"
    yield "Hindi", "नमस्ते दुनिया, आज का मौसम बहुत अच्छा है।"
    yield "Thai", "สวัสดีชาวโลก วันนี้อากาศดีมาก"
    yield "Russian", "Съешь же ещё этих мягких французских булок, да выпей чаю."
    yield "Greek", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία."
    yield "Vietnamese", "Tiếng Việt có nhiều dấu thanh: sắc, huyền, hỏi, ngã, nặng."
    yield "German", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."
    yield "combining", "e\u0301 a\u0308 o\u0302\u0323 Z\u0351\u036b\u0343 n\u0303 \u1112\u1161\u11ab"
    yield "composed", "é ä ộ ñ 한 \ufb01 \u212b \u2126"
    yield "emoji", "😀😃🎉 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ☺️ ❤️‍🔥 🇩🇪🇫🇷"
    yield "mathematics", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ∑_{i=0}^{∞} 2^{-i} ≤ √π² ≈ 3¾"
    yield "controls", "a\x01b\x1b[31mred\x7f\x85\u200b\u200d\ufeff\u2028x"
    yield "rare planes", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𒀀𒁀 \U000e0041 \U0010fffd"
    yield "URL", "https://user:pw@[2001:db8::1]:8080/a/b.html?x=%20y#frag user@example.com"
    yield "LaTeX", "\\begin{equation}\n\\frac{\\partial f}{\\partial x_i} = \\lim_{h\\to0}\n\\end{equation}"
    yield "JSON", json.dumps({"a": [1, 2.5, None, True], "b": {"c": "d\n\te"}}, indent=2)
    yield "table", "| a | b |\n|---|---|\n| 1 | 2 |\n\n- item\n  - item\n    1. item\n"
    yield "empty", ""
    yield "one letter", "a"
    yield "punctuation", "!!! ??? ... --- ___ ''' \"\"\" ``` ~~~ *** /// \\\\\\ (((  )))"
    yield "slashes", "a/b//c///\n/\n//\n/usr/local/bin/ http://\n\n/x"
    yield "special", "".join(f"{token}Hello{token}\n" for token in special[:12])
    yield "broken special", " ".join(token[:-1] for token in special[:12])
    for i in range(12):
        letters = [
            chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0x2000)))) for _ in range(400)
        ]
        yield f"random {i}", "".join(letters).encode("utf-8", "replace").decode()
    words = (source / "ast.py").read_text().split()
    yield "1 MB", " ".join(rng.choice(words) for _ in range(150_000))[: 1 << 20]


def main() -> None:
    """Print the table: each vocabulary, each way, texts, tokens, differences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    failed = False
    for folder in parser.parse_args().folders:
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        special = [one["content"] for one in description["added_tokens"] if one["special"]]
        for way, tokenizer in _ways(folder, description):
            if isinstance(tokenizer, UsageError):
                print(f"{_name(folder):24} {way:12} {tokenizer}")
                continue
            n_texts = n_tokens = 0
            wrong = []
            for name, text in texts(special):
                right = judge.encode(text, add_special_tokens=False).ids
                ours = tokenizer.encode(text, is_start=False)
                n_texts, n_tokens = n_texts + 1, n_tokens + len(right)
                if ours != right:
                    wrong.append(name)
            failed = failed or bool(wrong)
            differ = f"{len(wrong)} differ {', '.join(wrong)}"
            print(f"{_name(folder):24} {way:12} {n_texts} texts, {n_tokens:,} tokens, {differ}")
    sys.exit(failed)


def _name(folder: Path) -> str:
    return next((part for part in reversed(folder.parts) if part not in ("models", "package")), "?")


def _ways(folder: Path, description: dict[str, Any]) -> Iterator[tuple[str, Tokenizer | UsageError]]:
    own = read_folder(folder)
    yield "folder", own
    for way, make in (("GGUF", _as_gguf), (".t", _as_t_file)):
        try:
            yield way, make(folder, description, own)
        except UsageError as error:
            yield way, error


def _as_gguf(folder: Path, description: dict[str, Any], own: Tokenizer) -> Tokenizer:
    """Make a tokenizer of what llama.cpp's converter writes of this vocabulary."""
    model = description["model"]
    added = {one["id"]: one for one in description["added_tokens"]}
    ids = {i: token for token, i in model["vocab"].items()} | {
        i: one["content"] for i, one in added.items()
    }
    n = max(ids) + 1
    is_bytes = model.get("byte_fallback", False)
    tokens = [ids.get(i, f"[PAD{i}]") for i in range(n)]
    types = [
        5 if i not in ids
        else (3 if added[i]["special"] else 4) if i in added
        else 6 if is_bytes and tokens[i].startswith("<0x")
        else 1
        for i in range(n)
    ]  # fmt: skip
    metadata: dict[str, Any] = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if is_bytes:
        scores = _scores(tokens, model["merges"])
        prefix = "Prepend" in json.dumps(description["normalizer"])
        metadata |= {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.add_space_prefix": prefix,
        }
    else:
        metadata |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": _rule_of(description),
            "tokenizer.ggml.merges": merges,
        }
    return read_gguf_vocabulary(folder, metadata)


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """Return scores that have the order of the merges: the rank of a token is that of the first that makes it."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def _rule_of(description: dict[str, Any]) -> str:
    """Return the name under which a tokenizer's patterns are known."""
    found = description["pre_tokenizer"] or {}
    parts = found.get("pretokenizers", [found])
    patterns = tuple(part["pattern"]["Regex"] for part in parts if part.get("type") == "Split")
    nfc = (description["normalizer"] or {}).get("type") == "NFC"
    if any(part.get("type") == "Digits" for part in parts):
        return "command-r" if nfc else "smollm"
    if not patterns:
        return "gpt-2"
    wanted = _escaped(patterns), nfc, bool(description["model"].get("ignore_merges"))
    for name, rule in SPLIT_RULES.items():
        if (_escaped(rule.patterns), rule.nfc, rule.whole_first) == wanted:
            return name
    return "unknown"


def _escaped(patterns: Sequence[str]) -> list[str]:
    return [pattern.replace("\r", "\\r").replace("\n", "\\n") for pattern in patterns]


def _as_t_file(folder: Path, description: dict[str, Any], own: Tokenizer) -> Tokenizer:
    """Make a tokenizer of what the C++ project's converter writes of this vocabulary."""
    vocabulary = own.vocabulary
    if vocabulary.bos_id is None:
        first_special = min(one["id"] for one in description["added_tokens"])
    else:
        first_special = vocabulary.bos_id
    if description["model"].get("byte_fallback"):
        scores = [score if math.isfinite(score) else -1e9 for score in _scores_of_ids(own, description)]
    else:
        scores = [-float(i) for i in range(len(vocabulary.pieces))]
    pieces = [piece or b"<empty%d>" % i for i, piece in enumerate(vocabulary.pieces)]
    if description["model"].get("byte_fallback"):  # the converter leaves the names of bytes as they are
        for token, i in description["model"]["vocab"].items():
            pieces[i] = token.replace("\u2581", " ").encode()
    file = TokenizerFile.of(
        pieces, scores, bos_id=first_special, eos_ids=vocabulary.eos_ids[:1] or [first_special]
    )
    return tokenizer_of(file)


def _scores_of_ids(own: Tokenizer, description: dict[str, Any]) -> list[float]:
    by_id = {i: token for token, i in description["model"]["vocab"].items()}
    tokens = [by_id.get(i, "") for i in range(len(own.vocabulary.pieces))]
    return _scores(tokens, description["model"]["merges"])


if __name__ == "__main__":
    main()
