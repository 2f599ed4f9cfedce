"""How a person or a program sees what the conformance kit found.

Names, errors and the kit's words about a kernel may be a plugin's own texts: they are escaped here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from dllama_ops.check.suite import CaseFailure, CheckReport, KernelResult, SegmentResult, Tally
from dllama_proto.formatting import counted
from dllama_proto.json_text import json_text
from dllama_proto.printable import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["print_report", "progress_line", "report_as_json"]

#: Faults shown of one kernel; JSON has all.
_SHOWN = 3
#: Columns where there is no terminal to ask: no line of the tables is longer.
_WIDTH = 120


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Return what shows the current step in one line on standard error, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("checking") as status:
        yield lambda what: status.update(_text(f"checking {what}"))


def report_as_json(report: CheckReport) -> str:
    """Return everything that was found as a JSON text."""
    whole = {
        "passed": report.passed,
        "cases": report.n_cases,
        "seed": report.seed,
        "kernels": [_kernel_as_json(result) for result in report.kernels],
        "segments": [_segment_as_json(result) for result in report.segments],
        "broken": [
            {"plugin": failure.plugin, "stage": failure.stage, "why": failure.reason}
            for failure in report.broken
        ],
    }
    return json_text(whole, indent=2)


def print_report(report: CheckReport, file: TextIO | None = None) -> None:
    """Print tables of pass and fail, then what is wrong, in words; with colours on a terminal."""
    from rich.console import Console

    file = file or sys.stdout
    console = Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH, soft_wrap=True)
    if report.kernels:
        console.print(_kernel_table(report.kernels))
    if report.segments:
        console.print()
        console.print(_segment_table(report.segments))
    for failure in report.broken:
        console.print()
        console.print(_text(f"broken: {failure}", "red"))
    for kernel in report.kernels:
        _print_failures(console, f"{kernel.entry.source} {kernel.entry.key}", kernel.failures)
    for segment in report.segments:
        _print_failures(console, f"{segment.source} {_describe(segment)} segments", segment.failures)
    console.print()
    console.print(_text(_summary(report), "green" if report.passed else "bold red"))


def _kernel_table(results: Sequence[KernelResult]) -> Table:
    table = _new_table("plugin", "op", "quant", "recorded", "random", "chained", "refused")
    for result in results:
        key = result.entry.key
        tallies = map(_tally, (result.golden, result.random, result.chained, result.refusals))
        table.add_row(
            _text(result.entry.source), key.code.name, key.quant.name, *tallies, _verdict(result.passed)
        )
    return table


def _segment_table(results: Sequence[SegmentResult]) -> Table:
    table = _new_table("plugin", "segment", "activations", "compiled", "left alone")
    for result in results:
        kind = result.kind.replace("_", "-")
        activations = "q80" if result.quantised else "f32"
        declined = str(len(result.declined))
        table.add_row(
            _text(result.source),
            kind,
            activations,
            _tally(result.compiled),
            declined,
            _verdict(result.passed),
        )
    return table


def _new_table(*headings: str) -> Table:
    from rich.table import Table

    return Table(*headings, "result", box=None, header_style="bold", pad_edge=False)


def _tally(tally: Tally) -> str:
    return f"{tally.passed}/{tally.cases}" if tally.cases else "-"


def _verdict(passed: bool) -> Text:
    return _text("pass", "green") if passed else _text("FAIL", "bold red")


def _text(text: str, style: str = "") -> Text:
    """Return a text that is no markup, in one printable line."""
    from rich.text import Text

    return Text(printable(text), style)


def _describe(result: SegmentResult) -> str:
    return f"{result.kind.replace('_', '-')} {'q80' if result.quantised else 'f32'}"


def _print_failures(console: Any, what: str, failures: Sequence[CaseFailure]) -> None:
    if not failures:
        return
    console.print()
    console.print(_text(what, "bold"))
    for each in failures[:_SHOWN]:
        console.print(_text(f"  {each.case}: {each.failure}"))
    if len(failures) > _SHOWN:
        console.print(_text(f"  … and {len(failures) - _SHOWN} more; --json has them all"))


def _summary(report: CheckReport) -> str:
    failed = sum(not result.passed for result in report.kernels)
    text = f"{len(report.kernels) - failed} of {counted(len(report.kernels), 'kernel')} passed"
    if report.segments:
        wrong = sum(not result.passed for result in report.segments)
        text += f", {len(report.segments) - wrong} of {counted(len(report.segments), 'kind')} of segments"
    if report.broken:
        text += f"; broken plugins: {len(report.broken)}"
    last = report.seed + report.n_cases - 1
    return f"{text} (random cases: seeds {report.seed} to {last})"


def _kernel_as_json(result: KernelResult) -> dict[str, Any]:
    entry = result.entry
    return {
        "plugin": entry.plugin,
        "variant": entry.variant,
        "op": entry.key.code.name,
        "quant": entry.key.quant.name,
        "kernel": entry.kernel,
        "passed": result.passed,
        "recorded": _tally_as_json(result.golden),
        "random": _tally_as_json(result.random),
        "chained": _tally_as_json(result.chained),
        "refused": _tally_as_json(result.refusals),
        "faults": _failures_as_json(result.failures),
    }


def _segment_as_json(result: SegmentResult) -> dict[str, Any]:
    plugin, _, variant = result.source.partition(":")
    return {
        "plugin": plugin,
        "variant": variant,
        "segment": result.kind,
        "quantised": result.quantised,
        "passed": result.passed,
        "compiled": _tally_as_json(result.compiled),
        "left_alone": result.declined,
        "faults": _failures_as_json(result.failures),
    }


def _tally_as_json(tally: Tally) -> dict[str, int]:
    return {"cases": tally.cases, "passed": tally.passed}


def _failures_as_json(failures: Sequence[CaseFailure]) -> list[dict[str, str]]:
    return [{"case": each.case, "fault": each.failure} for each in failures]
