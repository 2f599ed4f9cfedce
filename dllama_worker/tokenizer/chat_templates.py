"""The chat templates that come with a model, and the texts of special tokens that they are given.

A model has one template or several by name: ``default`` is for conversations, ``tool_use`` for those with tools.
Where they are, and which file goes before which, is as in Hugging Face transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dllama_proto.input_files import MAX_TEXT_BYTES, check_regular, read_at_most
from dllama_worker.errors import UsageError

__all__ = ["ChatTemplates", "folder_templates", "gguf_templates", "named_special_tokens"]

_DEFAULT = "default"
_TEMPLATE_FILE = "chat_template.jinja"
_TEMPLATE_FOLDER = "additional_chat_templates"
_MAX_TEMPLATES = 64
_GGUF_KEY = "tokenizer.chat_template"
_GGUF_NAMES = "tokenizer.chat_templates"
#: What templates call the special tokens, and the keys of their ids.
_GGUF_TOKENS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "sep_token": "tokenizer.ggml.seperator_token_id",  # spelled so in the format
    "pad_token": "tokenizer.ggml.padding_token_id",
    "cls_token": "tokenizer.ggml.cls_token_id",
    "mask_token": "tokenizer.ggml.mask_token_id",
}


@dataclass(frozen=True, slots=True)
class ChatTemplates:
    """``sources`` are templates by their names, ``special_tokens`` texts by their roles (``bos_token``)."""

    sources: Mapping[str, str] = field(default_factory=dict)
    special_tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def default(self) -> str:
        """The template of conversations, empty where there is none."""
        return self.sources.get(_DEFAULT, "")

    @classmethod
    def of(cls, default: str, special_tokens: Mapping[str, str]) -> ChatTemplates:
        """Return those of a model with one template; an empty one is none."""
        return cls({_DEFAULT: default} if default else {}, special_tokens)


def folder_templates(folder: Path, config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the templates of a Hugging Face folder: the files; where there are none, the configuration's.

    Raises UsageError naming a file that can't be read.
    """
    files = {_DEFAULT: folder / _TEMPLATE_FILE} if (folder / _TEMPLATE_FILE).exists() else {}
    more = sorted((folder / _TEMPLATE_FOLDER).glob("*.jinja"))[:_MAX_TEMPLATES]
    files |= {path.stem: path for path in more}
    if files:
        return {name: _read(path) for name, path in files.items()}
    found = config.get("chat_template")
    if isinstance(found, str):
        return {_DEFAULT: found} if found else {}
    named = found[:_MAX_TEMPLATES] if isinstance(found, list) else []
    pairs = [(one.get("name"), one.get("template")) for one in named if isinstance(one, dict)]
    return {
        name: source
        for name, source in pairs
        if isinstance(name, str) and isinstance(source, str) and source
    }


def gguf_templates(path: Path, metadata: Mapping[str, Any], tokens: Sequence[str]) -> ChatTemplates:
    """Return the templates of a GGUF file with these tokens. Raises UsageError naming a key that is no text.

    An id that is no token's names none: files say so of tokens that their model has not.
    """
    names = metadata.get(_GGUF_NAMES, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{path}: {_GGUF_NAMES}: expected a list of names, got {str(names)[:60]}")
    keys = {_DEFAULT: _GGUF_KEY} | {name: f"{_GGUF_KEY}.{name}" for name in names[:_MAX_TEMPLATES]}
    found = {}
    for name, key in keys.items():
        source = metadata.get(key, "")
        if not isinstance(source, str):
            raise UsageError(f"{path}: {key}: expected a text, got {str(source)[:60]}")
        if source:
            found[name] = source
    ids = {role: metadata.get(key) for role, key in _GGUF_TOKENS.items()}
    special = {role: tokens[i] for role, i in ids.items() if type(i) is int and 0 <= i < len(tokens)}
    return ChatTemplates(found, special)


def named_special_tokens(config: Mapping[str, Any], legacy: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the special tokens that a folder's configuration names, by their roles (``bos_token``).

    ``legacy`` is ``special_tokens_map.json``, which goes before the configuration of older models.
    """
    extra = config.get("extra_special_tokens")
    given = {**config, **({} if "added_tokens_decoder" in config else legacy)}
    roles = {role: token for role, token in given.items() if role.endswith("_token")}
    roles |= extra if isinstance(extra, dict) else {}
    texts = {role: _text(token) for role, token in roles.items()}
    return {role: text for role, text in texts.items() if text is not None}


def _text(token: Any) -> str | None:
    """Return a token's text: written alone, or with how it is to be found in texts."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _read(path: Path) -> str:
    try:
        check_regular(path)
        return read_at_most(path, MAX_TEXT_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a chat template: {error.strerror or error}") from error
