"""What a model has read of a conversation: each turn is rendered whole, and only what is new is evaluated.

Templates may write earlier turns differently once they are earlier turns (many drop a model's thoughts, or add
a system message), so the tokens of the whole conversation decide, not what was said last. Positions behind the
first difference are simply evaluated again: their cache rows are overwritten.

A conversation that has outgrown the context loses its oldest turns, whole ones, down to half the context: what
is left has to be evaluated anew then, which should not happen with every message.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from dllama_worker.root.chat.conversation import ChatTemplate, Message, Prompt
from dllama_worker.tokenizer.interface import Tokenizer

__all__ = ["ChatContext", "Reading"]

#: A reply should have this part of the context at least.
_REPLY_PART = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """What comes next of a conversation: ``tokens`` are evaluated from ``position`` on, then the reply begins.

    ``n_dropped`` turns were left out for it.
    """

    prompt: Prompt
    position: int
    tokens: list[int]
    n_dropped: int = 0

    @property
    def end(self) -> int:
        """The position of the reply."""
        return self.position + len(self.tokens)


class ChatContext:
    """A conversation and the tokens of it that have been evaluated, in order from position 0."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._messages: list[Message] = []
        self._evaluated: list[int] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """What has been said and not been left out."""
        return tuple(self._messages)

    @property
    def system(self) -> str:
        """The system prompt, empty where there is none."""
        first = self._messages[:1]
        return first[0].content if first and first[0].role == "system" else ""

    @system.setter
    def system(self, text: str) -> None:
        rest = self._messages[1:] if self.system else self._messages
        self._messages = [*([Message("system", text)] if text else []), *rest]

    def say(self, role: str, content: str) -> None:
        """Add a message."""
        self._messages.append(Message(role, content))

    def take_back(self) -> None:
        """Forget the last message."""
        self._messages.pop()

    def begin(self, messages: Sequence[Message]) -> None:
        """Have another conversation instead."""
        self._messages = list(messages)

    def next_prompt(self) -> Reading:
        """Return the prompt for a reply to all that has been said.

        At least one token is evaluated, since the reply comes from its logits. Raises UsageError where the
        template cannot write the conversation.
        """
        prompt = self._template.render(self._messages)
        tokens = self._tokenizer.encode(prompt.text, is_start=True)
        pairs = zip(tokens[:-1], self._evaluated, strict=False)
        position = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return Reading(prompt, position, tokens[position:])

    def next_prompt_within(self, seq_len: int) -> Reading | None:
        """Return the prompt for a reply, older turns left out where the context has no room for all.

        None, and nothing left out, where the system prompt and the last message alone are too long. Raises
        UsageError where the template cannot write the conversation.
        """
        reading = self.next_prompt()
        if reading.end + seq_len // _REPLY_PART < seq_len:
            return reading
        before, n_dropped = self._messages, 0
        while reading.end > seq_len // 2 and self._drop_oldest_turn():
            n_dropped += 1
            reading = self.next_prompt()
        if reading.end > seq_len:
            self._messages = before
            return None
        return Reading(reading.prompt, reading.position, reading.tokens, n_dropped)

    def evaluated(self, position: int, tokens: Sequence[int]) -> None:
        """Note what stands in the cache from ``position`` on."""
        self._evaluated[position:] = tokens

    def _drop_oldest_turn(self) -> bool:
        """Leave out the first message of the user, with its reply; False where it is the one to reply to."""
        starts = [i for i, message in enumerate(self._messages) if message.role == "user"]
        if len(starts) < 2:
            return False
        self._messages = self._messages[: starts[0]] + self._messages[starts[1] :]
        return True
