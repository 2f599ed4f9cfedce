"""A model's own chat template, as the tokenizer file carries it: Jinja, as the model's makers wrote it.

Templates are given what Hugging Face transformers gives them (``apply_chat_template``): the messages,
``add_generation_prompt``, ``bos_token``, ``eos_token``, ``raise_exception`` and ``strftime_now``. They come
from a downloaded file, so they run in Jinja's sandbox.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dllama_worker.errors import UsageError
from dllama_worker.root.chat.conversation import Message, Prompt

__all__ = ["JinjaTemplate"]

_HINT = "choose one of the built-in forms with --chat-template"


class JinjaTemplate:
    """The template of a model. Raises UsageError where its source is no valid template."""

    name = "the model's own"

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        self._bos = bos
        self._eos = eos
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except (TemplateError, SyntaxError, RecursionError) as error:
            raise UsageError(f"the model's chat template is broken: {error}; {_HINT}") from error

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Return the prompt without a beginning token, which the tokenizer adds.

        Raises UsageError where the template refuses the conversation.
        """
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._template.render(
                messages=plain, add_generation_prompt=reply, bos_token=self._bos, eos_token=self._eos
            )
        # A template is a program: it can fail in any way that Python can.
        except Exception as error:
            raise UsageError(
                f"the model's chat template fails on this conversation: {error}; {_HINT}"
            ) from error
        return Prompt(text.removeprefix(self._bos))


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
