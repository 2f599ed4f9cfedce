"""What a conversation consists of, and what anything that writes it as a prompt offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["ChatTemplate", "Message", "Prompt"]


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said; ``role`` is "system", "user" or "assistant".

    ``fields`` are what a message may have beside, for templates that look for it (``reasoning_content``).
    """

    role: str
    content: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def plain(self) -> dict[str, Any]:
        """Return the message as OpenAI's API has it."""
        return {"role": self.role, "content": self.content, **self.fields}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the model reads it; ``shown`` is the end of it that opens the reply, for people."""

    text: str
    shown: str = ""


class ChatTemplate(Protocol):
    """Writes conversations as prompts, without the token that begins a context."""

    @property
    def name(self) -> str:
        """What people are told that is used."""
        ...

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Return the prompt, with ``reply`` so that the assistant speaks next.

        Raises UsageError where the conversation cannot be written so.
        """
        ...
