"""What a person can tell the chat itself: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from dllama_proto.exit_codes import error_text
from dllama_proto.formatting import counted
from dllama_worker.errors import UsageError
from dllama_worker.root.chat.context import ChatContext
from dllama_worker.root.chat.saved import load_conversation, save_conversation

__all__ = ["COMMANDS", "ChatCommands"]

#: Each with its arguments and what it does.
COMMANDS = MappingProxyType(
    {
        "/reset": ("", "begin a new conversation; the system prompt stays"),
        "/system": ("[TEXT | -]", "show the system prompt, set it, or have none (-)"),
        "/save": ("FILE", "write the conversation to a JSON file"),
        "/load": ("FILE", "go on with a conversation from such a file"),
        "/stats": ("", "tokens, speed, how full the context is"),
        "/help": ("", "show this"),
        "/exit": ("", "end the chat, as Ctrl-D does"),
    }
)


class ChatCommands:
    """Runs them on a conversation; ``tell`` shows a line, ``stats`` gives the lines for ``/stats``."""

    def __init__(
        self, context: ChatContext, tell: Callable[[str], None], stats: Callable[[], list[str]]
    ) -> None:
        self._context = context
        self._tell = tell
        self._stats = stats

    def run(self, line: str) -> bool:
        """Do what a line asks for, and say what is wrong with it; False ends the chat."""
        name, _, rest = line.strip().partition(" ")
        if name == "/exit":
            return False
        try:
            self._run(name, rest.strip())
        except (UsageError, OSError) as error:
            self._tell(f"({error_text(error)})")
        return True

    def _run(self, name: str, argument: str) -> None:
        context = self._context
        match name:
            case "/reset":
                context.begin([message for message in context.messages[:1] if message.role == "system"])
                self._tell("(a new conversation)")
            case "/system":
                self._system(argument)
            case "/save":
                path = _path(name, argument)
                save_conversation(path, context.messages)
                self._tell(f"(saved {counted(len(context.messages), 'message')} to {path})")
            case "/load":
                messages = load_conversation(_path(name, argument))
                context.begin(messages)
                self._tell(f"(loaded {counted(len(messages), 'message')})")
            case "/stats":
                for line in self._stats():
                    self._tell(line)
            case "/help":
                for command, (arguments, purpose) in COMMANDS.items():
                    self._tell(f"{f'{command} {arguments}':20} {purpose}")
                self._tell("A message that begins with a slash is written with two.")
            case _:
                raise UsageError(
                    f"there is no command {name}: /help shows those there are, and //… says /… to the model"
                )

    def _system(self, argument: str) -> None:
        if argument:
            self._context.system = "" if argument == "-" else argument
            self._tell(
                "(the conversation goes on with it)" if self._context.system else "(no system prompt)"
            )
        else:
            self._tell(self._context.system or "(no system prompt)")


def _path(name: str, argument: str) -> Path:
    if not argument or "\0" in argument:
        raise UsageError(f"{name} needs the name of a file")
    try:
        return Path(argument).expanduser()
    except RuntimeError as error:  # ~nobody-of-this-name
        raise UsageError(f"{argument}: {error}") from error
