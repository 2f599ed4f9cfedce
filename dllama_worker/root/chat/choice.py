"""Which template a conversation gets: the one asked for, else the model's own, else a built-in one like it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dllama_proto.input_files import MAX_TEXT_BYTES, check_regular, read_at_most
from dllama_proto.json_text import json_text
from dllama_worker.errors import UsageError
from dllama_worker.root.chat.conversation import ChatTemplate
from dllama_worker.root.chat.forms import FORMS, BuiltInTemplate, recognise_form
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.tokenizer.interface import Tokenizer, Vocabulary

__all__ = ["choose_template"]

_FORMS = ", ".join(FORMS)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def choose_template(
    tokenizer: Tokenizer, wanted: str | None = None, variables: Mapping[str, Any] = _NOTHING
) -> ChatTemplate:
    """Return the template for a model's conversations, given these variables.

    ``wanted`` is a built-in form, the name of one of the model's own templates, or of a file. Without it, it is
    the model's own (with ``tools`` that for tools), through Jinja; where Jinja is not installed, the built-in
    form that it looks like. Raises UsageError where there is none, and where a built-in form, which has none, is
    given variables.
    """
    vocabulary = tokenizer.vocabulary
    eos = _text(vocabulary.pieces[vocabulary.eos_ids[0]]) if vocabulary.eos_ids else ""
    if wanted in FORMS:
        return _built_in(str(wanted), eos, variables)
    name, source = _own_source(vocabulary, variables) if wanted is None else _source(vocabulary, wanted)
    if find_spec("jinja2") is None:
        recognised = recognise_form(source)
        if recognised is None or wanted is not None or variables:
            raise UsageError(
                "the model's chat template needs the package jinja2: install it, or choose one of "
                f"{_FORMS} with --chat-template, without variables"
            )
        return BuiltInTemplate(recognised, eos)
    bos_id = vocabulary.bos_id
    begins = _text(vocabulary.pieces[bos_id]) if vocabulary.add_bos and bos_id is not None else ""
    special = tuple(vocabulary.templates.special_tokens.items())
    return _jinja_template(source, special, begins, json_text(dict(variables)), name)


def _built_in(form: str, eos: str, variables: Mapping[str, Any]) -> ChatTemplate:
    if variables:
        raise UsageError(
            f"--template-vars {', '.join(variables)}: the built-in template {form} has no variables: leave out "
            "--chat-template, or the variables"
        )
    return BuiltInTemplate(form, eos)


def _own_source(vocabulary: Vocabulary, variables: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the model's own template and its source, as transformers chooses."""
    sources = vocabulary.templates.sources
    for name in ("tool_use", "default"):
        if name in sources and (name == "default" or variables.get("tools") is not None):
            return _called(name), sources[name]
    if sources:
        raise UsageError(
            f"the model has chat templates for {', '.join(sources)} and no default one: choose one with "
            "--chat-template"
        )
    raise UsageError(f"the tokenizer has no chat template: choose one of {_FORMS} with --chat-template")


def _source(vocabulary: Vocabulary, wanted: str) -> tuple[str, str]:
    """Return the name and the source of a template that was asked for."""
    sources = vocabulary.templates.sources
    if wanted in sources:
        return _called(wanted), sources[wanted]
    path = Path(wanted)
    try:
        check_regular(path)
        return str(path), read_at_most(path, MAX_TEXT_BYTES).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, ValueError) as error:
        own = f", those of the model ({', '.join(sources)})" if sources else ""
        raise UsageError(
            f"there is no chat template {wanted!r}, only {_FORMS}{own}, and files with one"
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a chat template: {error.strerror or error}") from error


def _called(name: str) -> str:
    return "the model's own" if name == "default" else f"the model's own, {name}"


@lru_cache(maxsize=1)
def _jinja_template(
    source: str, special_tokens: tuple[tuple[str, str], ...], begins: str, variables: str, name: str
) -> JinjaTemplate:
    """Return the template; the same for one that was looked at before, since a process comes with it."""
    return JinjaTemplate(
        source, dict(special_tokens), begins=begins, variables=json.loads(variables), name=name
    )


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")
