"""Findings as a person or a program sees them."""

from __future__ import annotations

from collections.abc import Sequence

from dllama_proto.terminal import Styled, Table, Terminal, print_json
from dllama_worker.doctor.finding import Finding, Grade

__all__ = ["print_findings", "print_findings_as_json"]

_STYLES = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.FAILURE: "bold red"}


def print_findings(findings: Sequence[Finding], terminal: Terminal | None = None) -> None:
    """Print one table to standard output, with colours on a terminal."""
    table = Table("check", "found", "", "advice", wraps=True)
    for finding in findings:
        grade = Styled(finding.grade.value, _STYLES[finding.grade])
        table.add(finding.name, finding.text, grade, finding.advice)
    (terminal or Terminal()).table(table)


def print_findings_as_json(findings: Sequence[Finding]) -> None:
    """Print all of it to standard output as JSON."""
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
    print_json(entries, indent=2)
