"""Lines of a chat that begin with a slash, and conversations on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama_worker.errors import UsageError
from dllama_worker.root.chat import ChatContext, Message
from dllama_worker.root.chat.commands import COMMANDS, ChatCommands
from dllama_worker.root.chat.forms import BuiltInTemplate
from dllama_worker.root.chat.saved import load_conversation, save_conversation

_TALK: tuple[Message, ...] = (
    Message("system", "Be brief."),
    Message("user", "Hé\x1b[31m"),
    Message("assistant", "Ho\n"),
)


class _Chat:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.context = ChatContext(BuiltInTemplate("chatml", ""), None)  # type: ignore[arg-type]
        self.context.begin(_TALK)
        self._commands = ChatCommands(self.context, self.said.append, lambda: ["as many"])

    def run(self, line: str) -> str:
        """Run a line that does not end the chat; return what it said."""
        self.said.clear()
        assert self._commands.run(line)
        return "\n".join(self.said)

    def ends(self, line: str) -> bool:
        return not self._commands.run(line)


def test_each_command_does_what_its_help_says(tmp_path: Path) -> None:
    chat = _Chat()
    path = tmp_path / "talk.json"
    assert all(command in chat.run("/help") for command in COMMANDS)
    assert chat.run("/stats") == "as many"
    assert chat.run(f"/save {path}") == f"(saved 3 messages to {path})"
    assert chat.run("/reset") == "(a new conversation)"
    assert chat.context.messages == _TALK[:1]
    assert chat.run(f"/load {path}") == "(loaded 3 messages)"
    assert chat.context.messages == _TALK
    assert chat.run("/system") == "Be brief."
    assert chat.run("/system Be long.") == "(the conversation goes on with it)"
    assert chat.context.system == "Be long."
    assert chat.run("/system -") == "(no system prompt)"
    assert chat.context.messages == _TALK[1:]
    assert chat.ends("/exit")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/halp", "there is no command /halp: /help shows those there are"),
        ("/save", "/save needs the name of a file"),
        ("/load /no/such/file", "/no/such/file: cannot be read: No such file or directory"),
        ("/save /no/such/folder/x", "cannot be written: No such file or directory"),
        ("/save ~nobody-of-this-name/x", "~nobody-of-this-name/x: "),
    ],
)
def test_what_cannot_be_done_is_said(line: str, said: str) -> None:
    chat = _Chat()
    assert said in chat.run(line)
    assert chat.context.messages == _TALK


def test_a_conversation_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    save_conversation(path, _TALK)
    assert load_conversation(path) == list(_TALK)
    assert b"\x1b" not in path.read_bytes()
    save_conversation(path, _TALK[1:])  # one conversation may replace another
    assert load_conversation(path) == list(_TALK[1:])
    path.write_text(json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]))
    assert load_conversation(path) == [Message("user", "a"), Message("assistant", "b")]


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a conversation")
    with pytest.raises(UsageError, match=r"notes\.txt is there and no conversation, so it is not replaced"):
        save_conversation(path, _TALK)
    assert path.read_text() == "not a conversation"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("7", "expected a list of messages"),
        ('{"messages": {}}', "expected a list of messages"),
        ('[{"role": "user"}]', r"messages\[0\]: expected a role .* and content"),
        ('[{"role": "tool", "content": ""}]', r"messages\[0\]: expected a role"),
        ('[{"role": "assistant", "content": ""}]', r"messages\[0\]: expected the user, got the assistant"),
        ('[{"role": "user", "content": ""}]', "expected a reply to the last message"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"talk\.json: .*{reason}|talk\.json: {reason}"):
        load_conversation(path)


def test_what_messages_have_beside_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    reply = {"role": "assistant", "content": "4", "reasoning_content": "2+2", "refusal": None}
    path.write_text(json.dumps([{"role": "user", "content": "2+2?"}, reply]))
    messages = load_conversation(path)
    assert messages[1].plain() == reply
    path.unlink()
    save_conversation(path, tuple(messages))
    assert load_conversation(path) == messages
