"""Traces that chrome://tracing and ui.perfetto.dev open: the JSON of Chrome's trace viewer, written as it comes.

A process is a node, a thread a track of it. Times in the file count from its first event; when that was is
said at the end (``otherData.epoch_ns``), so that traces of several programs can be put together. Source:
"Trace Event Format" (Google, the document that the Chromium project links).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from dllama_proto.exit_codes import CommandError
from dllama_proto.json_text import json_text

__all__ = ["TraceWriter", "merge_traces", "read_trace"]


class TraceWriter:
    """Writes a trace; use it as a context manager. Times are nanoseconds since 1970.

    Nodes and tracks get their names the first time something happens on them.
    """

    def __init__(self, file: TextIO, *, prefix: str = "") -> None:
        self._file = file
        self._prefix = prefix
        self._epoch: int | None = None
        self._named: set[tuple[int, int | None]] = set()
        self._tracks: dict[str, int] = {}
        self._n_events = 0

    def __enter__(self) -> TraceWriter:
        self._file.write('{"traceEvents":[')
        return self

    def __exit__(self, *_: object) -> None:
        other = {"epoch_ns": str(self._epoch or 0)}
        self._file.write(f'\n],"displayTimeUnit":"ms","otherData":{json_text(other)}}}\n')

    def span(
        self,
        node: int,
        track: str,
        name: str,
        began: int,
        ended: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Write something that took time."""
        event = {"ph": "X", "name": name, "dur": max(0, ended - began) / 1000}
        if arguments:
            event["args"] = dict(arguments)
        self._write(node, track, began, event)

    def arrow(
        self, number: int, name: str, source: tuple[int, str, int], target: tuple[int, str, int]
    ) -> None:
        """Write an arrow between two places: node, track, time; ``number`` is its own."""
        for phase, (node, track, time) in (("s", source), ("f", target)):
            event = {"ph": phase, "name": name, "cat": "flow", "id": number}
            if phase == "f":
                event["bp"] = "e"
            self._write(node, track, time, event)

    def counter(self, node: int, name: str, time: int, values: Mapping[str, float]) -> None:
        """Write what counters stand at."""
        self._write(node, None, time, {"ph": "C", "name": name, "args": dict(values)})

    def _write(self, node: int, track: str | None, time: int, event: dict[str, Any]) -> None:
        if self._epoch is None:
            self._epoch = time
        self._name(node, track)
        self._put({"pid": node, "tid": self._track(track), "ts": (time - self._epoch) / 1000} | event)

    def _track(self, track: str | None) -> int:
        return 0 if track is None else self._tracks.setdefault(track, len(self._tracks) + 1)

    def _name(self, node: int, track: str | None) -> None:
        if (node, None) not in self._named:
            self._named.add((node, None))
            name = f"{self._prefix}node {node}{'' if node else ' (root)'}"
            self._put({"ph": "M", "pid": node, "name": "process_name", "args": {"name": name}})
            self._put({"ph": "M", "pid": node, "name": "process_sort_index", "args": {"sort_index": node}})
        number = self._track(track)
        if track is not None and (node, number) not in self._named:
            self._named.add((node, number))
            meta = {"ph": "M", "pid": node, "tid": number}
            self._put(meta | {"name": "thread_name", "args": {"name": track}})
            self._put(meta | {"name": "thread_sort_index", "args": {"sort_index": number}})

    def _put(self, event: Mapping[str, Any]) -> None:
        self._file.write(",\n" if self._n_events else "\n")
        self._file.write(json_text(event))
        self._n_events += 1


def read_trace(data: bytes, name: str) -> dict[str, Any]:
    """Return a trace that this module has written. Raises CommandError for any other."""
    try:
        trace: dict[str, Any] = json.loads(data)
        int(trace["otherData"]["epoch_ns"])
        for event in trace["traceEvents"]:
            if not isinstance(event["pid"], int) or not isinstance(event["ph"], str):
                raise ValueError("an event without a node or kind")
            if not isinstance(event.get("ts", 0), int | float) or not isinstance(event.get("tid", 0), int):
                raise ValueError("an event whose time or track is no number")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CommandError(f"{name}: expected a trace written by this project, got {reason}") from error
    return trace


def merge_traces(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one trace of several: the same nodes, all tracks, one clock (that of the machines)."""
    epochs = [int(trace["otherData"]["epoch_ns"]) for trace in traces]
    epoch = min((e for e in epochs if e), default=0)
    events: list[dict[str, Any]] = []
    for number, (trace, start) in enumerate(zip(traces, epochs, strict=True)):
        for event in trace["traceEvents"]:
            moved = dict(event)
            if "ts" in moved:
                moved["ts"] += (start - epoch) / 1000
            # Tracks of the same number are not the same track.
            if moved.get("tid"):
                moved["tid"] += 100 * number
            if "id" in moved:
                moved["id"] = f"{number}.{moved['id']}"
            events.append(moved)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"epoch_ns": str(epoch)}}
