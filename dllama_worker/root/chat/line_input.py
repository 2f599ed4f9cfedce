"""Where a person's lines come from: an editor with history on a terminal, plain lines elsewhere.

Questions go to standard error, so that standard output is the model's text alone. What was typed is kept in
memory, never on the disk.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from dllama_proto.terminal import print_line

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

__all__ = ["LineInput", "open_line_input"]


class LineInput(Protocol):
    """Asks a person for lines. ``interactive`` where one sits at a terminal and can answer to an error."""

    interactive: bool

    def ask(self, question: str) -> str | None:
        """Return a line without its end; None at the end of the input. Raises KeyboardInterrupt."""
        ...


def open_line_input(words: Sequence[str]) -> LineInput:
    """Return the input for standard input; an editor completes ``words`` at the beginning of a line.

    Without a terminal, or without prompt_toolkit, lines are read as the system gives them.
    """
    interactive = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if interactive:
        try:
            return _Editor(words)
        except ImportError:
            pass
    return _Plain(interactive=interactive)


class _Plain:
    def __init__(self, *, interactive: bool) -> None:
        self.interactive = interactive

    def ask(self, question: str) -> str | None:
        _print_question(question)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.rstrip("\n") if line else None


class _Editor:
    """prompt_toolkit's line editor: keys of Emacs, arrows for the history, tab for commands."""

    interactive = True

    def __init__(self, words: Sequence[str]) -> None:
        """Raise ImportError where prompt_toolkit is not installed."""
        from prompt_toolkit import PromptSession  # slow to load
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.input import create_input
        from prompt_toolkit.output import create_output
        from prompt_toolkit.output.vt100 import Vt100_Output

        output = create_output(sys.stderr)
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False  # asks the terminal where the cursor is, only to place menus
        self._session: PromptSession[str] = PromptSession(
            completer=WordCompleter(list(words), sentence=True),
            complete_while_typing=False,
            input=create_input(sys.stdin),
            output=output,
        )

    def ask(self, question: str) -> str | None:
        """Return a line. Ctrl-C drops the line, and says how to leave; another one is meant."""
        warned = False
        while True:
            last = _print_question(question, but_last=True)
            try:
                return self._session.prompt(last)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if warned:
                    raise
                warned = True
                print_line("(Ctrl-D or /exit ends the chat)", sys.stderr)


def _print_question(question: str, *, but_last: bool = False) -> str:
    """Print a question, all lines of it or all but the last; return the last."""
    *above, last = question.split("\n")
    for line in above:
        print_line(line, sys.stderr)
    if not but_last:
        print_line(last, sys.stderr, ends=False)
    return last
