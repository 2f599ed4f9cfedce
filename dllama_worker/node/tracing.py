"""``--trace FILE``: what a node does, from inside, in the format of ``dllama-proto timeline``.

While a trace is written, ops run one after another, each with its own time; plugins take no segments whole.
So a traced forward is a little slower than another, and shows which op the time goes to. Spans are kept while
a forward runs and written after its last sync. A disk that is full ends the trace, never a session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from dllama_ops.kernel import BoundOp, CompiledSegment
from dllama_ops.segments import stop_check
from dllama_proto.dissect.places import places_of
from dllama_proto.exit_codes import ExitCode, error_text, exit_code
from dllama_proto.messages import NetConfig, NodeConfig
from dllama_proto.show.trace_format import TraceWriter
from dllama_worker.errors import MachineError, UsageError
from dllama_worker.node.executor import Synchronizer
from dllama_worker.report import Report

__all__ = ["Tracer"]

#: Track, name, begin and end by the clock that only runs forward, rows.
_Span = tuple[str, str, int, int, int]

_OPS, _SYNCS = "ops (inside)", "syncs (inside)"


class Tracer:
    """Writes the trace of a process: of one session after another, until :meth:`close`."""

    def __init__(self, path: Path, report: Report) -> None:
        """Open the file. Raises UsageError where its path is wrong, MachineError where the disk is."""
        try:
            self._file = _TraceFile(path, report)
        except OSError as error:
            kind = UsageError if exit_code(error) is ExitCode.CALLER else MachineError
            raise kind(f"cannot write the trace: {error_text(error)}") from error
        # Spans need a clock that only runs forward, and the time of day to be put beside other nodes' traces.
        self._epoch = time.time_ns() - time.perf_counter_ns()

    def close(self) -> None:
        """End the file; a second time does nothing."""
        self._file.close()

    def watch(
        self,
        net: NetConfig,
        config: NodeConfig,
        segments: Sequence[Sequence[BoundOp]],
        synchronizer: Synchronizer,
    ) -> tuple[list[CompiledSegment | None], Synchronizer]:
        """Return segments and a synchronizer that do the same and note when."""
        notes = _Notes(self._file, config.node_index, self._epoch)
        places = places_of(config)
        names = [
            f"{', '.join(net.pipes[sync.pipe_index].name for sync in segment.syncs)} {place}"
            for segment, place in zip(config.segments, places, strict=True)
        ]
        watched: list[CompiledSegment | None] = [
            _WatchedOps(ops, notes) if ops else None for ops in segments
        ]
        return watched, _WatchedSyncs(synchronizer, names, notes)


class _TraceFile:
    """The file of a trace. When it cannot be written any more, a warning says so, and no more is written."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report = path, report
        self._file = path.open("w", encoding="utf-8")
        self._writer = TraceWriter(self._file)
        self._writer.__enter__()
        self._is_open = True

    def spans(self, node: int, epoch: int, spans: Iterable[_Span]) -> None:
        if not self._is_open:
            return
        try:
            for track, name, began, ended, rows in spans:
                self._writer.span(node, track, name, epoch + began, epoch + ended, {"rows": rows})
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if not self._is_open:
            return
        try:
            self._writer.__exit__()
            self._file.close()
        except OSError as error:
            self._give_up(error)
        self._is_open = False

    def _give_up(self, error: OSError) -> None:
        self._is_open = False
        with suppress(OSError):
            self._file.close()
        self._report.warning(
            "trace_ended",
            f"cannot write {self._path}: {error_text(error)}; no more is traced",
            path=str(self._path),
        )


class _Notes:
    """Spans of the current forward."""

    def __init__(self, file: _TraceFile, node: int, epoch: int) -> None:
        self._file, self._node, self._epoch = file, node, epoch
        self._spans: list[_Span] = []

    def add(self, track: str, name: str, began: int, ended: int, rows: int) -> None:
        self._spans.append((track, name, began, ended, rows))

    def write(self) -> None:
        self._file.spans(self._node, self._epoch, self._spans)
        self._spans.clear()


class _WatchedOps:
    """The ops of a segment, one after another."""

    def __init__(self, ops: Sequence[BoundOp], notes: _Notes) -> None:
        self._ops: tuple[tuple[str, Callable[[int], None]], ...] = tuple(
            (f"{op.context.key.code.name} {op.context.name} {op.context.index}", op.forward) for op in ops
        )
        self._notes = notes
        self._check = stop_check(ops)

    def forward(self, batch_size: int) -> None:
        """Run every op on the first ``batch_size`` rows. Raises ForwardStopped, and what the kernels raise."""
        self.profile(batch_size)

    def profile(self, batch_size: int) -> list[float]:
        """Run as :meth:`forward` does; return the seconds of each op."""
        seconds = []
        began = time.perf_counter_ns()
        for name, forward in self._ops:
            self._check()
            forward(batch_size)
            ended = time.perf_counter_ns()
            self._notes.add(_OPS, name, began, ended, batch_size)
            seconds.append((ended - began) * 1e-9)
            began = ended
        return seconds


class _WatchedSyncs:
    """A synchronizer; after the last segment of a forward, its spans are written."""

    def __init__(self, synchronizer: Synchronizer, names: Sequence[str], notes: _Notes) -> None:
        self._synchronizer, self._names, self._notes = synchronizer, names, notes

    def sync(self, segment_index: int, batch_size: int) -> None:
        """Run the segment's syncs. Raises PeerLost."""
        began = time.perf_counter_ns()
        self._synchronizer.sync(segment_index, batch_size)
        self._notes.add(_SYNCS, self._names[segment_index], began, time.perf_counter_ns(), batch_size)
        if segment_index == len(self._names) - 1:
            self._notes.write()
