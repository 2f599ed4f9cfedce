"""What transformers makes of conversations, for ``templates.py``: a program for an environment that has it.

A JSON object comes in: paths, special tokens for templates without a tokenizer, and what templates are given. A
list goes out: for each path the answers of its templates by their names, each a text (and tokens) or an error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def main() -> None:
    """Answer once."""
    asked = json.load(sys.stdin)
    answers = []
    for path in asked["paths"]:
        sources, tokens, tokenizer = _read(path, asked["tokens"])
        answers.append(
            {
                name: [_answer(source, tokens, tokenizer, given) for given in asked["given"]]
                for name, source in sources.items()
            }
        )
    json.dump(answers, sys.stdout)


def _read(path: str, tokens: dict[str, str]) -> tuple[dict[str, str], dict[str, str], Any]:
    """Return the templates by name, the special tokens, and the tokenizer where there is one."""
    if os.path.isdir(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
        found = tokenizer.chat_template
        return found if isinstance(found, dict) else {"default": found} if found else {}, {}, tokenizer
    if path.endswith(".gguf"):
        return *_read_gguf(path), None
    with open(path, encoding="utf-8") as file:
        return {"default": file.read()}, tokens, None


def _read_gguf(path: str) -> tuple[dict[str, str], dict[str, str]]:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    texts = fields["tokenizer.ggml.tokens"]
    ids = {
        role: fields[f"tokenizer.ggml.{key}_token_id"].contents()
        for role, key in (
            ("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")
        )
        if f"tokenizer.ggml.{key}_token_id" in fields
    }  # fmt: skip
    start = "tokenizer.chat_template"
    sources = {
        key.removeprefix(start).removeprefix(".") or "default": field.contents()
        for key, field in fields.items()
        if key == start or key.startswith(start + ".")
    }
    return sources, {role: texts.contents(i) for role, i in ids.items()}


def _answer(source: str, tokens: dict[str, str], tokenizer: Any, given: dict[str, Any]) -> dict[str, Any]:
    asked = {
        "conversation": given["messages"],
        "chat_template": source,
        "add_generation_prompt": given.get("reply", True),
        **given.get("variables", {}),
    }
    try:
        if tokenizer is None:
            return {"text": _bare(tokens).apply_chat_template(tokenize=False, **asked)}
        text = tokenizer.apply_chat_template(tokenize=False, **asked)
        return {"text": text, "tokens": tokenizer.apply_chat_template(return_dict=False, **asked)}
    except Exception as error:  # a template can fail in any way
        return {"error": str(error)}


def _bare(tokens: dict[str, str]) -> PreTrainedTokenizerBase:
    """Return a tokenizer that only knows its special tokens."""
    return PreTrainedTokenizerBase(**tokens)


if __name__ == "__main__":
    main()
