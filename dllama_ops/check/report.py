"""How a person or a program sees what the conformance kit found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from dllama_ops.check.suite import CaseFault, CheckReport, KernelResult, SegmentResult, Tally

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["print_report", "progress_line", "report_as_json"]

#: Faults shown of one kernel; JSON has all.
_SHOWN = 3
#: Columns where there is no terminal to ask: no line of the tables is longer.
_WIDTH = 120


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Give what shows the work at hand in one line of a terminal's standard error, and nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("checking") as status:
        yield lambda what: status.update(f"checking {what}")


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
    return json.dumps(whole, indent=2)


def print_report(report: CheckReport, file: TextIO | None = None) -> None:
    """Print tables of pass and fail, then what is wrong, in words; with colours on a terminal."""
    from rich.console import Console
    from rich.text import Text

    file = file or sys.stdout
    console = Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH, soft_wrap=True)
    if report.kernels:
        console.print(_kernel_table(report.kernels))
    if report.segments:
        console.print()
        console.print(_segment_table(report.segments))
    for failure in report.broken:
        console.print()
        console.print(Text(f"broken: {failure}", style="red"))
    for kernel in report.kernels:
        _print_faults(console, f"{kernel.entry.source} {kernel.entry.key}", kernel.faults)
    for segment in report.segments:
        _print_faults(console, f"{segment.source} {_describe(segment)} segments", segment.faults)
    console.print()
    console.print(Text(_summary(report), style="green" if report.passed else "bold red"))


def _kernel_table(results: Sequence[KernelResult]) -> Table:
    table = _new_table("plugin", "op", "quant", "recorded", "random", "chained", "refused")
    for result in results:
        key = result.entry.key
        tallies = map(_tally, (result.golden, result.random, result.chained, result.refusals))
        table.add_row(result.entry.source, key.code.name, key.quant.name, *tallies, _verdict(result.passed))
    return table


def _segment_table(results: Sequence[SegmentResult]) -> Table:
    table = _new_table("plugin", "segment", "activations", "compiled", "left alone")
    for result in results:
        kind = result.kind.replace("_", "-")
        activations = "q80" if result.quantised else "f32"
        declined = str(len(result.declined))
        table.add_row(
            result.source, kind, activations, _tally(result.compiled), declined, _verdict(result.passed)
        )
    return table


def _new_table(*headings: str) -> Table:
    from rich.table import Table

    return Table(*headings, "result", box=None, header_style="bold", pad_edge=False)


def _tally(tally: Tally) -> str:
    return f"{tally.passed}/{tally.cases}" if tally.cases else "-"


def _verdict(passed: bool) -> str:
    return "[green]pass[/]" if passed else "[bold red]FAIL[/]"


def _describe(result: SegmentResult) -> str:
    return f"{result.kind.replace('_', '-')} {'q80' if result.quantised else 'f32'}"


def _print_faults(console: Any, what: str, faults: Sequence[CaseFault]) -> None:
    from rich.text import Text

    if not faults:
        return
    console.print()
    console.print(Text(what, style="bold"))
    for each in faults[:_SHOWN]:
        console.print(Text(f"  {each.case}: {each.fault}"))
    if len(faults) > _SHOWN:
        console.print(Text(f"  … and {len(faults) - _SHOWN} more; --json has them all"))


def _summary(report: CheckReport) -> str:
    failed = sum(not result.passed for result in report.kernels)
    text = f"{len(report.kernels) - failed} of {len(report.kernels)} kernels pass"
    if report.segments:
        wrong = sum(not result.passed for result in report.segments)
        text += f", {len(report.segments) - wrong} of {len(report.segments)} kinds of segments"
    if report.broken:
        text += f"; {len(report.broken)} broken plugins"
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
        "faults": _faults_as_json(result.faults),
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
        "faults": _faults_as_json(result.faults),
    }


def _tally_as_json(tally: Tally) -> dict[str, int]:
    return {"cases": tally.cases, "passed": tally.passed}


def _faults_as_json(faults: Sequence[CaseFault]) -> list[dict[str, str]]:
    return [{"case": each.case, "fault": each.fault} for each in faults]
