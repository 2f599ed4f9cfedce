"""Which template a conversation gets: the one asked for, else the model's own, else a built-in one like it."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from dllama_worker.errors import UsageError
from dllama_worker.root.chat.conversation import ChatTemplate
from dllama_worker.root.chat.forms import FORMS, BuiltInTemplate, recognise_form
from dllama_worker.root.chat.jinja import JinjaTemplate
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["choose_template"]


def choose_template(tokenizer: Tokenizer, form: str | None = None) -> ChatTemplate:
    """Return the template for a model's conversations; ``form`` names a built-in one.

    Without a form it is the model's own, through Jinja; where Jinja is not installed, the built-in form that
    it looks like. Raises UsageError where there is none.
    """
    vocabulary = tokenizer.vocabulary
    eos = _text(vocabulary.pieces[vocabulary.eos_ids[0]]) if vocabulary.eos_ids else ""
    if form is not None:
        if form not in FORMS:
            raise UsageError(f"there is no chat template {form!r}, only {', '.join(FORMS)}")
        return BuiltInTemplate(form, eos)
    source = vocabulary.templates.default
    if not source:
        raise UsageError(
            f"the tokenizer has no chat template: choose one of {', '.join(FORMS)} with --chat-template"
        )
    if find_spec("jinja2") is None:
        recognised = recognise_form(source)
        if recognised is None:
            raise UsageError(
                "the model's chat template needs the package jinja2: install it, or choose one of "
                f"{', '.join(FORMS)} with --chat-template"
            )
        return BuiltInTemplate(recognised, eos)
    bos_id = vocabulary.bos_id
    bos = _text(vocabulary.pieces[bos_id]) if vocabulary.add_bos and bos_id is not None else ""
    return _own_template(source, bos, eos)


@lru_cache(maxsize=1)
def _own_template(source: str, bos: str, eos: str) -> JinjaTemplate:
    """Return the template; the same for one that was looked at before, since a process comes with it."""
    return JinjaTemplate(source, bos=bos, eos=eos)


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")
