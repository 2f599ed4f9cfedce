"""The four forms of a conversation that C++ ``ChatTemplateGenerator`` has built in (``tokenizer.cpp``).

Same text as there, but for ChatML: C++ invites the assistant to speak after every message, also before the
user has spoken; here it is invited once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dllama_worker.root.chat.conversation import Message, Prompt

__all__ = ["BuiltInTemplate", "FORMS", "recognise_form"]

# The bars of these two are fullwidth ones.
_USER = "<\uff5cUser\uff5c>"
_ASSISTANT = "<\uff5cAssistant\uff5c>"

_Write = Callable[[Sequence[Message], str, bool], Prompt]

#: What is found in a model's own template, in the order in which C++ looks.
_MARKS = (
    ("llama2", "[INST]"),
    ("llama3", "<|start_header_id|>"),
    ("deepSeek3", _ASSISTANT),
    ("chatml", "<|im_start|>"),
)


@dataclass(frozen=True, slots=True)
class BuiltInTemplate:
    """One of ``FORMS`` by its name; ``eos`` is the text of the model's end token."""

    name: str
    eos: str

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Return the prompt (C++ ``ChatTemplateGenerator::generate``)."""
        return FORMS[self.name](messages, self.eos, reply)


def recognise_form(template: str) -> str | None:
    """Return the form that a model's own template has, by what C++ looks for in it."""
    return next((name for name, mark in _MARKS if mark in template), None)


def _llama2(messages: Sequence[Message], eos: str, reply: bool) -> Prompt:
    text = ""
    rest = messages
    if [message.role for message in messages[:2]] == ["system", "user"]:
        system, user, *rest = messages
        text = f"[INST] <<SYS>>\n{system.content}\n<</SYS>>\n\n{user.content} [/INST]{eos}"
    for message in rest:
        if message.role == "assistant":
            text += message.content + eos
        elif message.role == "user":
            text += f"[INST] {message.content} [/INST]{eos}"
    return Prompt(text)


def _llama3(messages: Sequence[Message], eos: str, reply: bool) -> Prompt:
    text = "".join(
        f"<|start_header_id|>{message.role}<|end_header_id|>\n\n{message.content}{eos}"
        for message in messages
    )
    return Prompt(text + ("<|start_header_id|>assistant<|end_header_id|>\n\n" if reply else ""))


def _deepseek3(messages: Sequence[Message], eos: str, reply: bool) -> Prompt:
    text = ""
    for i, message in enumerate(messages):
        if message.role == "system" and i == 0:
            text += message.content
        elif message.role == "user":
            text += _USER + message.content
        elif message.role == "assistant":
            text += _ASSISTANT + message.content
    if not reply:
        return Prompt(text)
    return Prompt(f"{text}{_ASSISTANT}<think>\n", shown="<think>\n")


def _chatml(messages: Sequence[Message], eos: str, reply: bool) -> Prompt:
    text = "".join(
        f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n"
        for message in messages
        if message.role in ("system", "user", "assistant")
    )
    return Prompt(text + ("<|im_start|>assistant\n" if reply else ""))


#: What writes each form, by the name that the C++ command line gives it (chatml has none there).
FORMS: Mapping[str, _Write] = MappingProxyType(
    {"llama2": _llama2, "llama3": _llama3, "deepSeek3": _deepseek3, "chatml": _chatml}
)
