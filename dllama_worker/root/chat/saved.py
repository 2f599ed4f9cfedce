"""Conversations on the disk: JSON, the messages as OpenAI's API has them, which other programs read too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dllama_proto.input_files import MAX_TEXT_BYTES, check_regular, read_at_most
from dllama_proto.json_text import json_text
from dllama_worker.errors import UsageError
from dllama_worker.root.chat.conversation import Message

__all__ = ["load_conversation", "save_conversation"]

_KIND = "dllama-chat"


def save_conversation(path: Path, messages: tuple[Message, ...]) -> None:
    """Write a conversation. A file that is there is replaced only if it is one too.

    Raises UsageError where it is not, or cannot be written.
    """
    if path.exists():
        try:
            load_conversation(path)
        except UsageError as error:
            raise UsageError(f"{path} is there and no conversation, so it is not replaced") from error
    plain = [message.plain() for message in messages]
    text = json_text({"kind": _KIND, "version": 1, "messages": plain}, ascii_only=False, indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_conversation(path: Path) -> list[Message]:
    """Read a conversation: perhaps a system prompt, then the user and the assistant in turn.

    What messages have beside role and content is kept for the template. A bare list of messages is read as
    well. Raises UsageError naming the file and what is wrong with it.
    """
    try:
        check_regular(path)
        document = json.loads(read_at_most(path, MAX_TEXT_BYTES).decode("utf-8", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}") from error
    plain = document.get("messages") if isinstance(document, dict) else document
    if not isinstance(plain, list):
        raise UsageError(f"{path}: expected a list of messages")
    messages = [_message(path, i, entry) for i, entry in enumerate(plain)]
    _check_turns(path, messages)
    return messages


def _message(path: Path, index: int, entry: Any) -> Message:
    role, content = (entry.get(key) if isinstance(entry, dict) else None for key in ("role", "content"))
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise UsageError(
            f"{path}: messages[{index}]: expected a role (system, user, assistant) and content, a text"
        )
    fields = {name: value for name, value in entry.items() if name not in ("role", "content")}
    return Message(role, content, fields)


def _check_turns(path: Path, messages: list[Message]) -> None:
    start = 1 if messages and messages[0].role == "system" else 0
    for i, message in enumerate(messages[start:]):
        expected = ("user", "assistant")[i % 2]
        if message.role != expected:
            raise UsageError(
                f"{path}: messages[{start + i}]: expected the {expected}, got the {message.role}"
            )
    if (len(messages) - start) % 2:
        raise UsageError(f"{path}: expected a reply to the last message")
