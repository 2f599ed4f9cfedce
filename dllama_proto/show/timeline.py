"""``dllama-proto timeline``: a session as a trace, as far as the wire tells.

What a node computes is not on the wire, but when: from the last byte that it received for a sync to the first
one that it sends for the next. A sync lasts, for a node, from its own first byte to the last one it sends or
receives. What comes before a node's own first byte waits for it, so an arrow to it ends where its sync begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dllama_proto.dissect.dissection import dissect_pcap
from dllama_proto.dissect.events import Forward, MessageEvent, SliceEvent, WeightEvent, WireEvent
from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import format_bytes
from dllama_proto.input_files import open_regular
from dllama_proto.json_text import json_text
from dllama_proto.messages import ControlPacket
from dllama_proto.show.trace_format import TraceWriter, merge_traces, read_trace

__all__ = ["Timeline", "TraceSink", "run_merge", "run_timeline"]

_COMPUTE, _SYNC, _SETUP = "compute", "sync", "setup"

#: Nodes of the n-th session of a capture begin at this many times n.
_SESSION_NODES = 1000

#: A sync lasts so many nanoseconds longer than its last byte, so that an arrow to that byte ends inside. More than
#: one: a trace has microseconds with a fraction, which viewers take times 1000 and cut off.
_MARGIN = 4


@dataclass(slots=True)
class _Sync:
    """One sync of the current forward: what each pair of nodes exchanged."""

    name: str
    pipe: str
    #: By sender and receiver: first byte, last byte, bytes.
    flows: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)

    def add(self, sender: int, receiver: int, event: SliceEvent) -> None:
        """Take a slice."""
        began, ended, n = self.flows.get((sender, receiver), (event.began, event.time, 0))
        self.flows[sender, receiver] = min(began, event.began), max(ended, event.time), n + event.size

    def nodes(self) -> list[int]:
        """Return who takes part."""
        return sorted({node for pair in self.flows for node in pair})

    def n_bytes(self, node: int) -> int:
        """Return how much a node sends and receives."""
        return sum(size for pair, (_, _, size) in self.flows.items() if node in pair)

    def span(self, node: int, ready: int | None) -> tuple[int, int]:
        """Return when the sync began and ended for a node that was ``ready`` for it then.

        Who sends nothing begins with what comes first.
        """
        mine = [
            (sender, flow) for (sender, receiver), flow in self.flows.items() if node in (sender, receiver)
        ]
        sent = [began for sender, (began, _, _) in mine if sender == node]
        began = min(sent or [began for _, (began, _, _) in mine])
        if ready is not None:
            began = max(began, ready)
        return began, _MARGIN + max(began, *(ended for _, (_, ended, _) in mine))


class TraceSink(Protocol):
    """Who takes a trace; see :class:`~dllama_proto.show.trace_format.TraceWriter`."""

    def span(
        self,
        node: int,
        track: str,
        name: str,
        began: int,
        ended: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take something that took time."""

    def arrow(
        self, number: int, name: str, source: tuple[int, str, int], target: tuple[int, str, int]
    ) -> None:
        """Take an arrow between two places: node, track, time."""

    def counter(self, node: int, name: str, time: int, values: Mapping[str, float]) -> None:
        """Take what counters stand at."""


class Timeline:
    """Turns the events of one session into a trace, forward by forward."""

    def __init__(self, writer: TraceSink, number: int) -> None:
        self._writer = writer
        self._first_node = number * _SESSION_NODES
        self._forward: Forward | None = None
        self._control: dict[int, int] = {}
        self._syncs: dict[tuple[int, int], _Sync] = {}
        self._n_arrows = 0
        self._time = 0
        self._sent: dict[int, int] = {}
        self._received: dict[int, int] = {}

    def add(self, event: WireEvent) -> None:
        """Take the next event of the session."""
        stream = event.stream
        if stream is None or stream.sender is None or stream.receiver is None:
            return
        if isinstance(event, MessageEvent | WeightEvent | SliceEvent):
            self._sent[stream.sender] = self._sent.get(stream.sender, 0) + event.size
            self._received[stream.receiver] = self._received.get(stream.receiver, 0) + event.size
            self._time = max(self._time, event.time)
        match event:
            case MessageEvent(message=ControlPacket()):
                self._on_control(event, stream.sender, stream.receiver)
            case MessageEvent() if event.kind != "ack":
                node = self._first_node + stream.receiver
                self._writer.span(
                    node, _SETUP, event.kind.value, event.began, event.time, {"bytes": event.size}
                )
            case WeightEvent():
                self._weight(event, stream.receiver)
            case SliceEvent():
                self._slice(event)
            case _:
                pass

    def finish(self) -> None:
        """Write what is still under way, and where counters end."""
        if self._forward is not None:
            self._end_forward(self._forward)
        for node in sorted({*self._sent, *self._received}):
            self._count(node, self._time)

    def _on_control(self, event: MessageEvent, sender: int, receiver: int) -> None:
        forward = event.forward
        if self._forward is not None and (forward is None or forward.index > self._forward.index):
            self._end_forward(self._forward)
        if forward is None:
            return
        if self._forward is None:
            self._forward = forward
        self._control.setdefault(sender, event.began)
        self._control[receiver] = event.time

    def _weight(self, event: WeightEvent, receiver: int) -> None:
        node = self._first_node + receiver
        arguments = {"bytes": event.data_size, "offset": event.header.offset}
        name = f"{event.header.name} {event.header.op_index}"
        self._writer.span(node, _SETUP, name, event.began, event.time, arguments)
        self._count(receiver, event.time)

    def _slice(self, event: SliceEvent) -> None:
        transfer = event.transfer
        if self._forward is None or event.forward.index != self._forward.index:
            return
        sync = self._syncs.setdefault(
            (transfer.segment_index, transfer.sync_index), _Sync(str(event.place), event.pipe)
        )
        sync.add(transfer.sender, transfer.receiver, event)

    def _end_forward(self, forward: Forward) -> None:
        """Write a forward: for each node computing and syncing by turns, then the arrows."""
        ready = dict(self._control)
        arguments = {"forward": forward.index, "position": forward.position, "rows": forward.batch_size}
        for _, sync in sorted(self._syncs.items()):
            spans = {node: sync.span(node, ready.get(node)) for node in sync.nodes()}
            for node, (began, ended) in spans.items():
                number = self._first_node + node
                before = ready.get(node, began)
                if began > before:
                    self._writer.span(number, _COMPUTE, sync.name, before, began, arguments)
                more = arguments | {"bytes": sync.n_bytes(node)}
                self._writer.span(number, _SYNC, f"{sync.pipe} {sync.name}", began, ended, more)
                ready[node] = ended
            self._arrows(sync, spans)
        for node, time in ready.items():
            self._count(node, time)
        self._syncs.clear()
        self._control.clear()
        self._forward = None

    def _arrows(self, sync: _Sync, spans: Mapping[int, tuple[int, int]]) -> None:
        """Write an arrow for each pair; its ends lie in the two spans, since viewers drop all others."""
        for (sender, receiver), (began, ended, n) in sorted(sync.flows.items()):
            self._n_arrows += 1
            self._writer.arrow(
                self._first_node * 1_000_000 + self._n_arrows,
                f"{sync.pipe} {format_bytes(n)}",
                (self._first_node + sender, _SYNC, _within(began, spans[sender])),
                (self._first_node + receiver, _SYNC, _within(ended, spans[receiver])),
            )

    def _count(self, node: int, time: int) -> None:
        values = {"sent": self._sent.get(node, 0), "received": self._received.get(node, 0)}
        self._writer.counter(self._first_node + node, "bytes", time, values)


def _within(time: int, span: tuple[int, int]) -> int:
    """Return the nearest time that a span holds for sure."""
    began, ended = span
    return min(max(time, began), ended - _MARGIN)


def run_timeline(source: str, output: Path) -> int:
    """Write the trace of a capture. Raises CaptureError and OSError."""
    timelines: dict[int, Timeline] = {}
    with output.open("w", encoding="utf-8") as file, TraceWriter(file) as writer:
        for event in dissect_pcap(source):
            if event.stream is not None and event.stream.session is not None:
                number = event.stream.session
                if number not in timelines:
                    timelines[number] = Timeline(writer, number)
                timelines[number].add(event)
        for timeline in timelines.values():
            timeline.finish()
    return ExitCode.DONE


def run_merge(sources: Sequence[str], output: Path) -> int:
    """Put traces together. Raises CommandError where one is none, and OSError."""
    traces = []
    for source in sources:
        with open_regular(Path(source)) as file:
            traces.append(read_trace(file.read(), source))
    output.write_text(json_text(merge_traces(traces)) + "\n", encoding="utf-8")
    return ExitCode.DONE
