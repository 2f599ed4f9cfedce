"""How a person, a script or another program sees the kernel table.

Names, reasons and errors may be a plugin's own texts: they are escaped here, on their way out.
"""

from __future__ import annotations

import sys

from dllama_ops import native
from dllama_ops.errors import listed
from dllama_ops.table import KernelTable
from dllama_proto.json_text import json_text
from dllama_proto.printable import printable

__all__ = ["print_table", "table_as_json", "table_as_text"]

_HEADINGS = ("op", "quant", "plugin", "kernel", "why")


def print_table(table: KernelTable, *, as_json: bool = False) -> None:
    """Print to standard output: with colours on a terminal, as plain columns elsewhere, or as JSON."""
    if as_json:
        print(table_as_json(table))
    elif sys.stdout.isatty():
        _print_rich(table)
    else:
        print(table_as_text(table))


def table_as_json(table: KernelTable) -> str:
    """Return everything about the table as a JSON text."""
    kernels = [
        {
            "op": key.code.name,
            "quant": key.quant.name,
            "plugin": choice.entry.plugin,
            "variant": choice.entry.variant,
            "kernel": choice.entry.kernel,
            "priority": choice.entry.priority,
            "why": choice.reason,
            "others": sorted(
                entry.source for entry in table.entries if entry.key == key and entry is not choice.entry
            ),
        }
        for key, choice in table.choices.items()
    ]
    failures = [
        {"plugin": failure.plugin, "stage": failure.stage, "why": failure.reason}
        for failure in table.failures
    ]
    whole = {
        "kernels": kernels,
        "plugins": table.plugins,
        "segment_compilers": [compiler.plugin for compiler in table.compilers],
        "broken": failures,
    }
    return json_text(whole, indent=2)


def table_as_text(table: KernelTable) -> str:
    """Return the table as plain columns, then the notes."""
    rows = [_HEADINGS, *_rows(table)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_notes(table)])


def _print_rich(table: KernelTable) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = _rows(table)
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        view = Table(*_HEADINGS, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            view.add_row(*map(Text, row))
        console.print(view)
    else:  # the reasons below their rows, so that a narrow terminal tears no name apart
        for *names, reason in (_HEADINGS, *rows):
            line = "  ".join(map(str.ljust, names, widths)).rstrip()
            console.print(Text(line, style="bold" if reason == _HEADINGS[-1] else ""), soft_wrap=True)
            if reason != _HEADINGS[-1]:
                console.print(Padding(Text(reason), (0, 0, 0, 4)))
    console.print()
    for note in _notes(table):
        console.print(Text(note, style="red" if note.startswith("broken") else ""))


def _rows(table: KernelTable) -> list[tuple[str, ...]]:
    return [
        tuple(
            map(
                printable,
                (key.code.name, key.quant.name, choice.entry.source, choice.entry.kernel, choice.reason),
            )
        )
        for key, choice in table.choices.items()
    ]


def _notes(table: KernelTable) -> list[str]:
    notes = [
        f"plugins: {listed(table.plugins)}",
        f"may take whole segments: {listed(compiler.plugin for compiler in table.compilers)}",
        *([] if native.unavailable is None else [f"no native kernels: {native.unavailable}"]),
        *(f"broken: {failure}" for failure in table.failures),
    ]
    return list(map(printable, notes))
