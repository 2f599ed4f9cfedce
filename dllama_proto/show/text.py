"""Events as lines of text: time, who to whom, what; below it, where asked, fields, bytes and numbers."""

from __future__ import annotations

from datetime import datetime
from typing import TextIO

from rich.console import Console
from rich.text import Text

from dllama_proto.dissect.dissection import Dissection
from dllama_proto.dissect.events import Kind, MessageEvent, WeightEvent, WireEvent
from dllama_proto.printable import printable
from dllama_proto.show.fields import hex_lines, message_tree
from dllama_proto.show.labels import bytes_text, describe
from dllama_proto.show.values import Values

__all__ = ["EventPrinter"]

_STYLES = {
    Kind.FAULT: "bold red",
    Kind.MISSING: "yellow",
    Kind.UNEXPLAINED: "yellow",
    Kind.NOTICE: "yellow",
    Kind.WEIGHT: "dim",
    Kind.SLICE: "",
    Kind.CONTROL: "bold",
    Kind.OPENED: "green",
    Kind.CLOSED: "green",
}


class EventPrinter:
    """Prints the events of one capture; times count from its first event."""

    def __init__(self, dissection: Dissection, file: TextIO, *, fields: bool, raw: bool) -> None:
        # Lines go as they are into files and pipes: nothing is wrapped there.
        self._console = Console(file=file, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self._dissection = dissection
        self._fields = fields
        self._raw = raw
        self._start: int | None = None

    def see(self, event: WireEvent) -> None:
        """Note an event, shown or not: the first one begins the clock."""
        if self._start is None:
            self._start = event.began
            when = datetime.fromtimestamp(event.began / 1e9).astimezone().isoformat(timespec="milliseconds")
            self._console.print(Text(f"{self._dissection.name}, from {when}", "bold"))

    def event(self, event: WireEvent, values: Values | None = None) -> None:
        """Print one event."""
        self.see(event)
        seconds = (event.began - (self._start or 0)) / 1e9
        stream = "" if event.stream is None else str(event.stream)
        line = Text(f"{seconds:11.6f}  {stream:17}  ")
        line.append(f"{event.kind.value:11}", _STYLES.get(event.kind, "cyan"))
        size = f"  [{bytes_text(event.size)}]" if event.size else ""
        line.append(f"  {printable(describe(event))}{size}")
        self._console.print(line)
        if values is not None:
            self._console.print(Text(f"{'':33}{_values_text(values)}"))
        if self._fields and isinstance(event, MessageEvent | WeightEvent):
            session = event.stream.session if event.stream is not None else None
            net = None if session is None else self._dissection.sessions[session].net
            tree = message_tree(event, net)
            if tree is not None:
                self._console.print(tree)
        if self._raw and event.raw:
            for offset, data, label in hex_lines(event):
                self._console.print(Text(f"  {offset:10}  {data:47}  {printable(label)}", "dim"))

    def totals(self) -> None:
        """Print what became of everything."""
        totals = self._dissection.totals
        line = Text(
            f"{totals.packets} packets, {totals.sessions} sessions, "
            f"{bytes_text(totals.explained_bytes)} explained, "
        )
        style = "bold yellow" if totals.missing_bytes or totals.unexplained_bytes else "bold green"
        line.append(f"{totals.missing_bytes} bytes missing, {totals.unexplained_bytes} unexplained", style)
        extra = []
        if totals.retransmitted_bytes:
            extra.append(f"{bytes_text(totals.retransmitted_bytes)} sent again")
        if totals.foreign_connections:
            extra.append(f"{totals.foreign_connections} connections of other programs")
        if totals.other_packets:
            extra.append(f"{totals.other_packets} packets that are not TCP")
        line.append("".join(f", {text}" for text in extra))
        self._console.print(line)


def _values_text(values: Values) -> str:
    text = (
        f"{values.n} values: min {values.minimum:.6g}, max {values.maximum:.6g}, mean {values.mean:.6g}, "
        f"{values.n_nan} NaN"
    )
    for token in values.top:
        name = "" if token.text is None else f" {token.text!r}"
        text += f"\n{'':33}token {token.index}{name}: {token.logit:.4f}"
    return text
