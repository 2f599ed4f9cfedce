"""A chat template in Jinja, as a model's makers wrote it: what it is given, and what it writes.

That is what Hugging Face transformers gives it (``apply_chat_template``): the messages with all their fields,
``tools`` and ``documents``, ``add_generation_prompt``, the model's special tokens by their roles, and variables
that a person names. It comes from a downloaded file and is a program, so it runs in Jinja's sandbox, and in a
process of its own (:mod:`dllama_worker.root.chat.template_process`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dllama_worker.errors import UsageError
from dllama_worker.root.chat.conversation import Message, Prompt
from dllama_worker.root.chat.template_process import TemplateProcess

__all__ = ["JinjaTemplate"]

_HINT = "choose one of the built-in forms with --chat-template"
_OWN = "the model's own"
_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: What a message's thoughts are called. The first is what templates look for, the others are older.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


class JinjaTemplate:
    """A template and all that it is given beside a conversation.

    ``special_tokens`` are texts by their roles (``bos_token``), ``variables`` anything that JSON has. ``begins``
    is the beginning token where the tokenizer adds it. Raises UsageError where the source is no valid template.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str] = _NOTHING,
        *,
        begins: str = "",
        variables: Mapping[str, Any] = _NOTHING,
        name: str = _OWN,
    ) -> None:
        self.name = name
        self._subject = (
            "the model's chat template" if name.startswith(_OWN) else f"the chat template {name}"
        )
        self._source = source
        self._given = {"tools": None, "documents": None, **special_tokens, **variables}
        self._begins = begins
        self._process, self._names = self._start()
        #: The variables that the template does not look at: their names may be wrong.
        self.unused = tuple(name for name in variables if name not in self._names)

    @property
    def names(self) -> tuple[str, ...]:
        """All variables that the template looks at."""
        return tuple(self._names)

    @property
    def pid(self) -> int:
        """The number of the process that renders it."""
        return self._process.pid

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Return the prompt without a beginning token that the tokenizer adds.

        Raises UsageError where the template refuses the conversation, or takes too much time or memory for it.
        """
        text = self.text([message.plain() for message in messages], reply=reply)
        return Prompt(text.removeprefix(self._begins))

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        reply: bool = True,
        variables: Mapping[str, Any] = _NOTHING,
    ) -> str:
        """Return all that the template writes, given ``variables`` beside its own. Raises as :meth:`render`.

        A field of a message that is None counts as none.
        """
        if not self._process.is_running:  # it was ended: another conversation may go better
            self._process, self._names = self._start()
        given = {
            **self._given,
            **variables,
            "messages": [_with_thoughts(message) for message in messages],
            "add_generation_prompt": reply,
        }
        return str(self._ask(self._process, given, "fails on this conversation")["text"])

    def _start(self) -> tuple[TemplateProcess, list[str]]:
        process = TemplateProcess()
        answer = self._ask(process, {"source": self._source}, "is broken")
        return process, answer["names"]

    def _ask(self, process: TemplateProcess, wanted: Mapping[str, Any], failing: str) -> dict[str, Any]:
        try:
            return process.ask(wanted)
        except ValueError as error:
            raise UsageError(f"{self._subject} {failing}: {error}; {_HINT}") from error


def _with_thoughts(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's fields, its thoughts under every name that templates look for."""
    plain = {name: value for name, value in message.items() if value is not None}
    found = next((plain[name] for name in _THOUGHTS if name in plain), None)
    return plain if found is None else {"thinking": found, **plain, "reasoning_content": found}
