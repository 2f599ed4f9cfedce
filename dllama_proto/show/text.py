"""Events as lines of text: time, who to whom, what; below it, where asked, fields, bytes and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TextIO

from dllama_proto.dissect.dissection import Dissection
from dllama_proto.dissect.events import Kind, MessageEvent, WeightEvent, WireEvent
from dllama_proto.formatting import counted, format_bytes
from dllama_proto.show.fields import hex_lines, message_tree
from dllama_proto.show.labels import describe
from dllama_proto.show.values import Values
from dllama_proto.terminal import Styled, Terminal

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
        self._terminal = Terminal(file)
        self._dissection = dissection
        self._fields = fields
        self._raw = raw
        self._start: int | None = None

    def see(self, event: WireEvent) -> None:
        """Note an event, shown or not: the first one begins the clock."""
        if self._start is None:
            self._start = event.began
            when = datetime.fromtimestamp(event.began / 1e9).astimezone().isoformat(timespec="milliseconds")
            self._terminal.line(Styled(f"{self._dissection.name}, from {when}", "bold"))

    def event(self, event: WireEvent, values: Values | None = None) -> None:
        """Print one event."""
        self.see(event)
        seconds = (event.began - (self._start or 0)) / 1e9
        stream = "" if event.stream is None else str(event.stream)
        size = f"  [{format_bytes(event.size)}]" if event.size else ""
        self._terminal.line(
            f"{seconds:11.6f}  {stream:17}  ",
            Styled(f"{event.kind.value:11}", _STYLES.get(event.kind, "cyan")),
            f"  {describe(event)}{size}",
        )
        for text in () if values is None else _values_lines(values):
            self._terminal.line(f"{'':33}{text}")
        if self._fields and isinstance(event, MessageEvent | WeightEvent):
            session = event.stream.session if event.stream is not None else None
            net = None if session is None else self._dissection.sessions[session].net
            tree = message_tree(event, net)
            if tree is not None:
                self._terminal.tree(tree)
        if self._raw and event.raw:
            for offset, data, label in hex_lines(event):
                self._terminal.line(Styled(f"  {offset:10}  {data:47}  {label}", "dim"))

    def totals(self) -> None:
        """Print what became of everything."""
        totals = self._dissection.totals
        style = "bold yellow" if totals.missing_bytes or totals.unexplained_bytes else "bold green"
        extra = []
        if totals.retransmitted_bytes:
            extra.append(f"{format_bytes(totals.retransmitted_bytes)} sent again")
        if totals.foreign_connections:
            extra.append(f"{counted(totals.foreign_connections, 'connection')} of other programs")
        if totals.other_packets:
            extra.append(f"{counted(totals.other_packets, 'packet')} of other protocols")
        missing = counted(totals.missing_bytes, "byte")
        self._terminal.line(
            f"{counted(totals.packets, 'packet')}, {counted(totals.sessions, 'session')}, "
            f"{format_bytes(totals.explained_bytes)} explained, ",
            Styled(
                f"{missing} missing, {totals.unexplained_bytes} unexplained",
                style,
            ),
            "".join(f", {text}" for text in extra),
        )


def _values_lines(values: Values) -> Iterator[str]:
    yield (
        f"{counted(values.n, 'value')}: min {values.minimum:.6g}, max {values.maximum:.6g}, "
        f"mean {values.mean:.6g}, {values.n_nan} NaN"
    )
    for token in values.top:
        name = "" if token.text is None else f" {token.text!r}"
        yield f"token {token.index}{name}: {token.logit:.4f}"
