"""``dllama-proto report``: a session as one page that needs nothing else, and no network.

Everything that the page shows is gathered here and put into ``report.html`` as JSON; what it looks like, and
how it is searched, is decided there.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from dllama_proto.dissect.dissection import Dissection, dissect_pcap
from dllama_proto.dissect.events import FaultEvent, MissingEvent, NoticeEvent, UnexplainedEvent, WireEvent
from dllama_proto.dissect.session import Session
from dllama_proto.endpoint import Endpoint
from dllama_proto.exit_codes import ExitCode
from dllama_proto.formatting import format_bytes
from dllama_proto.json_text import json_text
from dllama_proto.messages import EmptyConfig, NetConfig, NodeConfig, OpConfig
from dllama_proto.show.json_form import plain, totals_json
from dllama_proto.show.labels import describe, pointer_text, quant_key_text, shape_text
from dllama_proto.show.summary import Summary
from dllama_proto.show.summary_text import summary_json
from dllama_proto.show.timeline import Timeline

__all__ = ["gather", "render", "run_report"]

#: A page stays readable, and small enough to send, with so many spans; later forwards are left out.
_MAX_SPANS = 30_000
_MAX_REMARKS = 200

_PLACE = "/*@DATA@*/"


class _Spans:
    """Takes a timeline's spans; tracks and names are numbered, since they repeat."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.tracks: dict[str, int] = {}
        self.spans: list[list[int]] = []
        self.n_left_out = 0
        self.epoch: int | None = None

    def span(
        self,
        node: int,
        track: str,
        name: str,
        began: int,
        ended: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a span: node, track, name, begin and length in nanoseconds, position (or -1)."""
        if len(self.spans) >= _MAX_SPANS:
            self.n_left_out += 1
            return
        if self.epoch is None:
            self.epoch = began
        self.spans.append(
            [
                node,
                self.tracks.setdefault(track, len(self.tracks)),
                self.names.setdefault(name, len(self.names)),
                began - self.epoch,
                max(0, ended - began),
                (arguments or {}).get("position", -1),
            ]
        )

    def arrow(
        self, number: int, name: str, source: tuple[int, str, int], target: tuple[int, str, int]
    ) -> None:
        """Leave arrows out: the page has a picture of links."""

    def counter(self, node: int, name: str, time: int, values: Mapping[str, float]) -> None:
        """Leave counters out: the page has them as tables."""


def gather(dissection: Dissection) -> dict[str, Any]:
    """Read a whole capture; return what the page shows. Raises CaptureError and OSError."""
    summary = Summary()
    spans: dict[int, _Spans] = {}
    timelines: dict[int, Timeline] = {}
    remarks: list[dict[str, Any]] = []
    n_remarks = 0
    for event in dissection:
        summary.add(event)
        if isinstance(event, NoticeEvent | FaultEvent | UnexplainedEvent | MissingEvent):
            n_remarks += 1
            if len(remarks) < _MAX_REMARKS:
                remarks.append(_remark(event))
        number = None if event.stream is None else event.stream.session
        if number is not None:
            if number not in timelines:
                spans[number] = _Spans()
                timelines[number] = Timeline(spans[number], 0)
            timelines[number].add(event)
    summary.finish()
    for timeline in timelines.values():
        timeline.finish()
    sums = {session["session"]: session for session in summary_json(summary)["sessions"]}
    return {
        "totals": totals_json(dissection),
        "remarks": remarks,
        "n_remarks": n_remarks,
        "sessions": [
            sums[session.number] | _session(session) | {"timeline": _timeline(spans[session.number])}
            for session in dissection.sessions
            if session.number in sums
        ],
    }


def render(data: Mapping[str, Any]) -> str:
    """Return the page."""
    template = files("dllama_proto.show").joinpath("report.html").read_text(encoding="utf-8")
    # Names come from the wire: nothing in them may end the script that they stand in.
    text = json_text(data, compact=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return template.replace(_PLACE, text)


def run_report(source: str, output: Path) -> int:
    """Write the page of a capture. Raises CaptureError and OSError."""
    output.write_text(render(gather(dissect_pcap(source))), encoding="utf-8")
    return ExitCode.DONE


def _remark(event: WireEvent) -> dict[str, Any]:
    stream = "" if event.stream is None else str(event.stream)
    return {
        "kind": event.kind.value,
        "stream": stream,
        "offset": event.offset,
        "text": describe(event),
    }


def _timeline(spans: _Spans) -> dict[str, Any]:
    return {
        "names": list(spans.names),
        "tracks": list(spans.tracks),
        "spans": spans.spans,
        "left_out": spans.n_left_out,
    }


# Configuration ----------------------------------------------------------------------------------------


def _session(session: Session) -> dict[str, Any]:
    addresses = [
        None if node is None else node.host if node.port is None else str(Endpoint(node.host, node.port))
        for node in session.nodes
    ]
    net = session.net
    return {
        "n_nodes": session.n_nodes,
        "addresses": plain(addresses),
        "n_batches": None if net is None else net.n_batches,
        "pipes": []
        if net is None
        else [
            {"name": plain(pipe.name), "shape": shape_text(pipe.size), "bytes": pipe.size.n_bytes}
            for pipe in net.pipes
        ],
        "configs": [_config(node, net) for _, node in sorted(session.configs.items())],
    }


def _config(node: NodeConfig, net: NetConfig | None) -> dict[str, Any]:
    return {
        "node": node.node_index,
        "weights": sum(op.weight_size.n_bytes for segment in node.segments for op in segment.ops),
        "buffers": [
            {"name": plain(buffer.name), "shape": shape_text(buffer.size), "bytes": buffer.size.n_bytes}
            for buffer in node.buffers
        ],
        "segments": [
            {
                "ops": [_op(op, net, node) for op in segment.ops],
                "syncs": [
                    {
                        "pipe": plain(net.pipes[sync.pipe_index].name) if net is not None else "",
                        "type": sync.sync_type.name.lower().replace("_", " "),
                    }
                    for sync in segment.syncs
                ],
            }
            for segment in node.segments
        ],
    }


def _op(op: OpConfig, net: NetConfig | None, node: NodeConfig) -> dict[str, Any]:
    facts = {
        "input": pointer_text(op.input, net, node),
        "output": pointer_text(op.output, net, node),
    }
    if op.weight_size.n_bytes:
        facts["weight"] = f"{shape_text(op.weight_size)}, {format_bytes(op.weight_size.n_bytes)}"
    if not isinstance(op.config, EmptyConfig):
        facts["config"] = ", ".join(
            f"{name} {value}" for name, value in plain(op.config).items() if not isinstance(value, dict)
        )
    return {
        "title": f"{op.code.name} {quant_key_text(op, net, node)} {op.name} {op.index}",
        "facts": facts,
    }
