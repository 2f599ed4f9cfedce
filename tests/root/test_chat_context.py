"""A conversation in a context of bounded length: what is read again, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dllama_worker.errors import UsageError
from dllama_worker.root.chat import ChatContext, Message
from dllama_worker.root.chat.conversation import Prompt


class _Template:
    """Writes ``<role:content>``; of earlier replies only what follows a thought, as many templates do."""

    name = "test"

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        if any(message.content == "refused" for message in messages):
            raise UsageError("the template refuses")
        said = "".join(
            f"<{message.role[0]}:{message.content if i == len(messages) - 1 else message.content.split('|')[-1]}>"
            for i, message in enumerate(messages)
        )
        return Prompt(said + ("<a:" if reply else ""))


class _Letters:
    """A tokenizer with one token for each letter."""

    def encode(self, text: str, *, is_start: bool = False) -> list[int]:
        return list(map(ord, text))


def _context() -> ChatContext:
    return ChatContext(_Template(), _Letters())  # type: ignore[arg-type]


def _text(tokens: Sequence[int]) -> str:
    return "".join(map(chr, tokens))


def _reply(context: ChatContext, seq_len: int, reply: str) -> str:
    """Read what is new and reply; return what was read."""
    reading = context.next_prompt_within(seq_len)
    assert reading is not None
    context.evaluated(reading.position, [*reading.tokens, *map(ord, reply)])
    context.say("assistant", reply)
    return _text(reading.tokens)


def test_only_what_is_new_is_read() -> None:
    context = _context()
    context.system = "brief"
    context.say("user", "one")
    assert _reply(context, 1000, "1") == "<s:brief><u:one><a:"
    context.say("user", "two")
    assert _reply(context, 1000, "2") == "><u:two><a:"


def test_what_a_template_writes_differently_later_is_read_again() -> None:
    context = _context()
    context.say("user", "one")
    _reply(context, 1000, "thought|1")
    context.say("user", "two")
    reading = context.next_prompt()
    assert reading.position == len("<u:one><a:")
    assert _text(reading.tokens) == "1><u:two><a:"


def test_at_least_one_token_is_read() -> None:
    context = _context()
    context.say("user", "one")
    reading = context.next_prompt()
    context.evaluated(0, reading.tokens)
    again = context.next_prompt()
    assert (again.position, _text(again.tokens)) == (reading.end - 1, ":")


def test_a_full_context_loses_its_oldest_turns_down_to_a_half() -> None:
    context = _context()
    context.system = "brief"
    for i in range(8):
        context.say("user", f"question {i}")
        context.say("assistant", f"answer {i}")
    context.say("user", "last")
    n_all = len(context.messages)
    reading = context.next_prompt_within(200)
    assert reading is not None
    assert reading.n_dropped > 0
    assert reading.end <= 100
    # Whole turns went, the oldest; the system prompt stays.
    assert len(context.messages) == n_all - 2 * reading.n_dropped
    assert [message.role for message in context.messages[:2]] == ["system", "user"]
    assert context.messages[1].content == f"question {reading.n_dropped}"
    assert context.messages[-1].content == "last"


def test_what_is_too_long_alone_is_refused_and_nothing_left_out() -> None:
    context = _context()
    context.say("user", "one")
    context.say("assistant", "1")
    context.say("user", "x" * 100)
    before = context.messages
    assert context.next_prompt_within(50) is None
    assert context.messages == before


def test_what_a_template_refuses_can_be_taken_back() -> None:
    context = _context()
    context.say("user", "refused")
    with pytest.raises(UsageError, match="the template refuses"):
        context.next_prompt_within(100)
    context.take_back()
    assert context.messages == ()


def test_the_system_prompt_is_the_first_message_or_none() -> None:
    context = _context()
    assert context.system == ""
    context.say("user", "one")
    context.system = "brief"
    context.system = "long"
    assert list(context.messages) == [Message("system", "long"), Message("user", "one")]
    context.system = ""
    assert list(context.messages) == [Message("user", "one")]
