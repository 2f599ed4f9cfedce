"""What a model has read of a conversation: each turn is rendered whole, and only what is new is evaluated.

Templates may write earlier turns differently once they are earlier turns (many drop a model's thoughts, or add
a system message), so the tokens of the whole conversation decide, not what was said last. Positions behind the
first difference are simply evaluated again: their cache rows are overwritten.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dllama_worker.root.chat.conversation import ChatTemplate, Message, Prompt
from dllama_worker.root.tokenizer import Tokenizer

__all__ = ["ChatContext"]


class ChatContext:
    """A conversation and the tokens of it that have been evaluated, in order from position 0."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._messages: list[Message] = []
        self._evaluated: list[int] = []

    def say(self, role: str, content: str) -> None:
        """Add a message."""
        self._messages.append(Message(role, content))

    def next_prompt(self) -> tuple[Prompt, int, list[int]]:
        """Return the prompt for a reply, the position to go on from, and the tokens to evaluate there.

        At least one token is evaluated, since the reply comes from its logits. Raises UsageError where the
        template cannot write the conversation.
        """
        prompt = self._template.render(self._messages)
        tokens = self._tokenizer.encode(prompt.text, is_start=True)
        pairs = zip(tokens[:-1], self._evaluated, strict=False)
        position = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return prompt, position, tokens[position:]

    def evaluated(self, position: int, tokens: Sequence[int]) -> None:
        """Note what stands in the cache from ``position`` on."""
        self._evaluated[position:] = tokens
