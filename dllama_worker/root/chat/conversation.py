"""What a conversation consists of, and what anything that writes it as a prompt offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["ChatTemplate", "Message", "Prompt"]


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said; ``role`` is "system", "user" or "assistant"."""

    role: str
    content: str


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
