"""Findings as a person or a program sees them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dllama_proto.json_text import json_text
from dllama_worker.doctor.finding import Finding, Grade

__all__ = ["findings_as_json", "print_findings"]

#: Columns where no terminal says how many there are.
_FILE_WIDTH = 160

_STYLES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.FAILURE: "bold red"}


def print_findings(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print one table to standard output, with colours on a terminal."""
    table = Table("check", "found", "", "advice", box=None, header_style="bold", pad_edge=False)
    for finding in findings:
        grade = Text(finding.grade.value, style=_STYLES[finding.grade])
        table.add_row(Text(finding.name), Text(finding.text), grade, Text(finding.advice))
    (console or _standard_output()).print(table)


def _standard_output() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def findings_as_json(findings: Sequence[Finding]) -> str:
    """Return all of it as a JSON text."""
    entries = [
        {
            "check": finding.name,
            "grade": finding.grade.value,
            "found": finding.text,
            "advice": finding.advice,
            **finding.facts,
        }
        for finding in findings
    ]
    return json_text(entries, indent=2)
