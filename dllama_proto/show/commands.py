"""``dllama-proto dissect``: captures in, events out, as somebody wants to see them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dllama_proto.dissect.dissection import Dissection, dissect_pcap
from dllama_proto.dissect.events import FaultEvent, SliceEvent, WireEvent
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.exit_codes import AMISS, CommandError, ExitCode
from dllama_proto.input_files import open_regular
from dllama_proto.show.filters import Filter
from dllama_proto.show.json_form import event_json, totals_json
from dllama_proto.show.summary import Summary
from dllama_proto.show.summary_text import print_summary, summary_json
from dllama_proto.show.text import EventPrinter
from dllama_proto.show.values import Values, values_of
from dllama_proto.terminal import print_json
from dllama_proto.tokenizer_file import TokenizerFile, read_tokenizer

__all__ = ["DissectOptions", "run_dissect"]


@dataclass(frozen=True, slots=True)
class DissectOptions:
    """What to show, and how."""

    wanted: Filter
    fields: bool = False
    raw: bool = False
    as_json: bool = False
    summary: bool = False
    values: bool = False
    tokenizer: Path | None = None
    #: What to call standard input.
    title: str | None = None


def run_dissect(files: Sequence[str], options: DissectOptions, out: TextIO | None = None) -> int:
    """Show captures; return 1 where bytes are unexplained or break the protocol, else 0.

    Raises CaptureError where a file is no capture, CommandError where the tokenizer is none, OSError.
    """
    out = sys.stdout if out is None else out
    tokenizer = None if options.tokenizer is None else _read_tokenizer(options.tokenizer)
    clean = True
    for file in files:
        dissection = dissect_pcap(file)
        if file == "-" and options.title:
            dissection.name = options.title
        if options.summary:
            faults = _sum_up(dissection, options, out)
        else:
            faults = _events(dissection, options, tokenizer, out)
        clean = clean and not faults and not dissection.totals.unexplained_bytes
    return ExitCode.DONE if clean else AMISS


def _read_tokenizer(path: Path) -> TokenizerFile:
    try:
        with open_regular(path) as file:
            return read_tokenizer(file)
    except RemoteProtocolError as error:
        raise CommandError(f"{path}: {error}") from error


def _sum_up(dissection: Dissection, options: DissectOptions, out: TextIO) -> int:
    summary, faults = Summary(), 0
    for event in dissection:
        faults += isinstance(event, FaultEvent)
        if options.wanted(event):
            summary.add(event)
    summary.finish()
    if options.as_json:
        print_json(summary_json(summary), out)
        print_json(totals_json(dissection), out)
    else:
        print_summary(summary, out)
        EventPrinter(dissection, out, fields=False, raw=False).totals()
    return faults


def _events(
    dissection: Dissection, options: DissectOptions, tokenizer: TokenizerFile | None, out: TextIO
) -> int:
    printer = EventPrinter(dissection, out, fields=options.fields, raw=options.raw)
    faults = 0
    for event in dissection:
        faults += isinstance(event, FaultEvent)
        if not options.as_json:
            printer.see(event)
        if not options.wanted(event):
            continue
        values = _values(dissection, event, tokenizer) if options.values else None
        if options.as_json:
            print_json(event_json(event, raw=options.raw, values=values), out)
        else:
            printer.event(event, values)
    if options.as_json:
        print_json(totals_json(dissection), out)
    else:
        printer.totals()
    return faults


def _values(dissection: Dissection, event: WireEvent, tokenizer: TokenizerFile | None) -> Values | None:
    if not isinstance(event, SliceEvent):
        return None
    return values_of(event, dissection.sessions[event.forward.session], tokenizer)
