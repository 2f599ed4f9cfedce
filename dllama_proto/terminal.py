"""The one way to a terminal, or to a file in its place: each text that is passed is shown in one line, escaped.

Texts come from the wire, from files, from command lines. A line break in one would forge a line, an escape
sequence would steer the terminal, rich's markup would colour what follows. So a text is data here, and never
more: lines, tables, trees and styles are made by calls, and :func:`~dllama_proto.printable.printable` is
applied to every text once, on its way out. Nothing else in this package or in ``dllama_worker`` uses rich or
prints; a test checks that.
"""

from __future__ import annotations

import os
import re
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TextIO

from dllama_proto.json_text import json_text
from dllama_proto.printable import printable

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.text import Text
    from rich.tree import Tree as RichTree

__all__ = [
    "RunningText",
    "Styled",
    "Table",
    "Terminal",
    "Tree",
    "end_running_line",
    "print_json",
    "print_line",
]

#: Columns of a table where no terminal says how many there are.
_FILE_WIDTH = 160

#: Blank columns between two columns of a table.
_COLUMN_GAP = 2

#: What of running text steers a terminal or turns the writing direction of what follows it: controls but for the
#: tab and line breaks (also those of two characters), and embeddings, overrides and isolates (Unicode UAX #9).
_STEERS = re.compile(r"(?!\r\n)[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Styled(NamedTuple):
    """A text, and how it looks on a terminal: ``bold``, ``red``, ``bold red``."""

    text: str
    style: str


def print_line(text: str, file: TextIO | None = None, *, ends: bool = True) -> None:
    """Print one line, to standard output unless told otherwise; without rich, which is slow to load.

    With ``ends`` False what comes next goes on in the same line: a question, where the answer stands.
    """
    out = sys.stdout if file is None else file
    end_running_line(out)
    print(_fit(text, out), file=out, end="\n" if ends else "", flush=not ends)


def print_json(
    value: Any, file: TextIO | None = None, *, ascii_only: bool = True, indent: int | None = None
) -> None:
    """Print a value as JSON, to standard output unless told otherwise; in one line unless ``indent`` is given.

    :func:`~dllama_proto.json_text.json_text` says what becomes of texts, and which errors are raised.
    """
    out = sys.stdout if file is None else file
    # Its letters need no escapes here: where they are not ASCII, those of JSON are used.
    encodable = (out.encoding or "utf-8").lower().startswith("utf")
    print(json_text(value, ascii_only=ascii_only or not encodable, indent=indent), file=out)


def end_running_line(file: TextIO) -> None:
    """Begin a new line in ``file`` where running text stands there in the middle of one."""
    text = RunningText.unfinished
    if text is not None and text.shares(file):
        RunningText.unfinished = None
        file.write("\n")


class RunningText:
    """Text of many lines that is shown as it comes, as a model writes it: line breaks and tabs are its own.

    A terminal is shown what else controls it as escapes; a file or a pipe gets every byte as it is, and with
    ``raw`` a terminal does too.
    """

    #: Whose last line is not ended yet, of all that was shown in this process.
    unfinished: ClassVar[RunningText | None] = None

    def __init__(self, file: TextIO | None = None, *, raw: bool = False) -> None:
        self._file = sys.stdout if file is None else file
        self._raw = raw
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def shares(self, file: TextIO) -> bool:
        """Tell whether what is written to ``file`` is seen behind this text: on the same terminal, in one file."""
        try:
            return os.path.sameopenfile(self._file.fileno(), file.fileno())
        except (OSError, ValueError):  # io.UnsupportedOperation is both: a file in memory
            return self._file is file

    def write(self, data: bytes) -> None:
        """Show more of the text at once, in UTF-8; it may end inside a character."""
        if data:
            RunningText.unfinished = None if data.endswith(b"\n") else self
        if self._raw or not self._file.isatty():
            self._file.buffer.write(data)
            self._file.buffer.flush()
            return
        text = _STEERS.sub(lambda found: printable(found[0]), self._decoder.decode(data))
        self._file.write(_encodable(text, self._file))
        self._file.flush()


class Table:
    """Rows under the names of columns; those of ``right`` are numbers. Without ``names`` there is no header."""

    def __init__(
        self, *names: str, title: str = "", right: Collection[str] = (), wraps: bool = False
    ) -> None:
        self.title = title
        self.names = names
        self.right = right
        #: Whether a cell that is too wide for the terminal goes on in the next line.
        self.wraps = wraps
        self.rows: list[tuple[str | Styled, ...]] = []

    def add(self, *cells: str | Styled) -> None:
        """Add a row."""
        self.rows.append(cells)


class Tree:
    """A text, and the trees below it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.branches: list[Tree] = []

    def add(self, text: str) -> Tree:
        """Add a tree below this one, and return it."""
        branch = Tree(text)
        self.branches.append(branch)
        return branch


class Terminal:
    """Prints to ``file``, to standard output unless told otherwise; with styles where that is a terminal.

    ``width`` is that of tables, in columns: unless given, the terminal's, or enough for any table of this project.
    """

    def __init__(self, file: TextIO | None = None, *, width: int | None = None) -> None:
        from rich.console import Console  # slow to load

        self._file = sys.stdout if file is None else file
        self._console = Console(file=self._file, highlight=False, markup=False, emoji=False)
        if width is not None or not self._console.is_terminal:
            self._console.width = _FILE_WIDTH if width is None else width

    def line(self, *parts: str | Styled) -> None:
        """Print the parts as one line, however long."""
        from rich.text import Text

        end_running_line(self._file)
        self._console.print(Text.assemble(*map(self._text, parts)), soft_wrap=True)

    def table(self, table: Table) -> None:
        """Print a table; one that is too wide as records, unless its cells may wrap: nothing is cut off."""
        from rich.table import Table as RichTable

        end_running_line(self._file)
        if not table.wraps and self._width_of(table) > self._console.width:
            self._records(table)
            return
        rich = RichTable(
            title=self._text(Styled(table.title, "bold")) if table.title else None,
            title_justify="left",
            show_header=bool(table.names),
            header_style="bold",
            box=None,
            pad_edge=False,
        )
        for name in table.names:
            justify: JustifyMethod = "right" if name in table.right else "left"
            rich.add_column(self._text(name), justify=justify, no_wrap=not table.wraps)
        for row in table.rows:
            rich.add_row(*map(self._text, row))
        self._console.print(rich)

    def _width_of(self, table: Table) -> int:
        rows = [table.names, *table.rows] if table.names else table.rows
        widths = [max(self._text(cell).cell_len for cell in column) for column in zip(*rows, strict=False)]
        return sum(widths) + _COLUMN_GAP * max(0, len(widths) - 1)

    def _records(self, table: Table) -> None:
        """Print each row as a line with its first cell, and below it the others by the names of their columns."""
        from rich.padding import Padding
        from rich.text import Text

        if table.title:
            self.line(Styled(table.title, "bold"))
        for first, *others in table.rows:
            self.line(first)
            facts = Text(", ").join(
                Text(" ").join(filter(None, (self._text(name), self._text(cell))))
                for name, cell in zip(table.names[1:] or [""] * len(others), others, strict=True)
                if self._text(cell)
            )
            if facts:
                self._console.print(Padding(facts, (0, 0, 0, 2)))

    def tree(self, tree: Tree) -> None:
        """Print a tree, each text in a line of its own, however long."""
        from rich.tree import Tree as RichTree

        end_running_line(self._file)
        rich = RichTree(self._text(tree.text))
        self._grow(rich, tree)
        self._console.print(rich, soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Show a bar of ``total`` bytes, or of what ``unit`` names.

        Yields what to call with each number of new ones.
        """
        from rich import progress

        end_running_line(self._file)
        amounts = (
            (progress.DownloadColumn(), progress.TransferSpeedColumn())
            if not unit
            else (progress.MofNCompleteColumn(), progress.TextColumn(unit))
        )
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            *amounts,
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(_fit(title, self._file), total=total)
            yield lambda n: bar.advance(task, n)

    def _text(self, part: str | Styled) -> Text:
        from rich.text import Text

        text, style = part if isinstance(part, Styled) else (part, "")
        return Text(_fit(text, self._file), style)

    def _grow(self, rich: RichTree, tree: Tree) -> None:
        for branch in tree.branches:
            self._grow(rich.add(self._text(branch.text)), branch)


def _fit(text: str, file: TextIO) -> str:
    """Return one line that may be written to the file."""
    return _encodable(printable(text), file)


def _encodable(text: str, file: TextIO) -> str:
    """Return the text with escapes for letters that the file's encoding has not."""
    if text.isascii():
        return text
    encoding = file.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
