"""Who runs a segment: a plugin that takes it whole, or its kernels one after another.

Plugins are asked in the order in which their kernels are preferred (those of ``--kernels`` first, the others by
the highest priority that each has registered, then by name), and the first that takes the segment runs it. With
``--kernels only:`` no others are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

from dllama_ops.blame import OWN_PLUGINS, Blame
from dllama_ops.errors import PluginFailure
from dllama_ops.kernel import BoundOp, CompiledSegment, ProfiledSegment

__all__ = [
    "CompileHook",
    "SegmentChoice",
    "SegmentCompiler",
    "SequentialSegment",
    "compile_segment",
    "guarded",
    "stop_check",
]

#: Calls one plugin's ``dllama_compile_segment``; pluggy gives back a list of the results that are not None.
CompileHook = Callable[..., list[Any]]


@dataclass(frozen=True, slots=True)
class SegmentCompiler:
    """A plugin that may take whole segments."""

    plugin: str
    hook: CompileHook


@dataclass(frozen=True, slots=True, eq=False)
class SegmentChoice:
    """What runs a segment. ``plugin`` is None where its kernels run one by one."""

    segment: CompiledSegment
    plugin: str | None
    reason: str
    failures: tuple[PluginFailure, ...] = ()


class SequentialSegment:
    """Runs the kernels of a segment one after another."""

    def __init__(self, ops: Sequence[BoundOp]) -> None:
        self._forwards = tuple(op.forward for op in ops)
        self._check = stop_check(ops)

    def forward(self, batch_size: int) -> None:
        """Run every op on the first ``batch_size`` rows. Raises ForwardStopped, and what the kernels raise."""
        check = self._check
        for forward in self._forwards:
            check()
            forward(batch_size)

    def profile(self, batch_size: int) -> list[float]:
        """Run as :meth:`forward` does; return the seconds of each op."""
        times = [perf_counter()]
        for forward in self._forwards:
            self._check()
            forward(batch_size)
            times.append(perf_counter())
        return [after - before for before, after in pairwise(times)]


def stop_check(ops: Sequence[BoundOp]) -> Callable[[], None]:
    """Return what to call between two of these ops; it raises ForwardStopped where their node is to stop."""
    scope = ops[0].context.scope if ops else None
    return _go_on if scope is None else scope.check


def _go_on() -> None:
    """Do nothing: nobody can stop ops that belong to no node."""


def compile_segment(
    compilers: Iterable[SegmentCompiler], ops: Sequence[BoundOp], n_threads: int
) -> SegmentChoice:
    """Offer a segment to ``compilers`` (those of a KernelTable) in turn; the first to take it runs it.

    A plugin that raises, or returns what cannot run, is a failure of the result; then the next one is asked.
    """
    failures: list[PluginFailure] = []
    for compiler in compilers:
        try:
            results = compiler.hook(ops=ops, n_threads=n_threads)
        except (Exception, SystemExit) as error:
            failures.append(PluginFailure.of(compiler.plugin, "compile a segment", error))
            continue
        if not results:
            continue
        if callable(getattr(results[0], "forward", None)):
            return SegmentChoice(results[0], compiler.plugin, "takes the whole segment", tuple(failures))
        reason = f"expected an object with forward(batch_size), got {results[0]!r}"
        failures.append(PluginFailure(compiler.plugin, "compile a segment", reason))
    reason = "no plugin takes it whole"
    return SegmentChoice(SequentialSegment(ops), None, reason, tuple(failures))


def guarded(choice: SegmentChoice, ops: Sequence[BoundOp]) -> CompiledSegment:
    """Return what runs ``ops``; a plugin that does so whole is named where it raises (KernelFailed)."""
    if choice.plugin is None or choice.plugin in OWN_PLUGINS:
        return choice.segment
    kind = _GuardedProfile if isinstance(choice.segment, ProfiledSegment) else _GuardedSegment
    return kind(choice.segment, choice.plugin, ops)


class _GuardedSegment:
    """A segment that an installed plugin runs whole: what it raises names the plugin."""

    def __init__(self, segment: Any, plugin: str, ops: Sequence[BoundOp]) -> None:
        self._segment = segment
        ends = " to ".join(dict.fromkeys(op.context.where for op in (ops[0], ops[-1])))
        self._blame = Blame(plugin, f"run the segment of {ends}")

    def forward(self, batch_size: int) -> None:
        """Run it. Raises KernelFailed."""
        with self._blame:
            self._segment.forward(batch_size)


class _GuardedProfile(_GuardedSegment):
    """The same of a segment that can tell where its time goes."""

    def profile(self, batch_size: int) -> Sequence[float]:
        """Run it; return the seconds of each op. Raises KernelFailed."""
        with self._blame:
            seconds: Sequence[float] = self._segment.profile(batch_size)
            return seconds
