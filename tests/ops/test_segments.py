"""Who runs a segment: the first plugin that takes it whole, else its kernels one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dllama_ops import (
    BaseKernel,
    BoundOp,
    ProfiledSegment,
    SegmentChoice,
    SequentialSegment,
    build_kernel_table,
    compile_segment,
)
from dllama_ops.testing import random_case
from tests.ops.plugins import MUL, SILU, Compiler, Plugin, manager, reference


class _Counts(BaseKernel):
    """Notes every call in a list that all share."""

    calls: list[tuple[str, int]]

    def forward(self, batch_size: int) -> None:
        self.calls.append((self.context.name, batch_size))


class _Whole:
    """A compiled segment that does nothing."""

    def forward(self, batch_size: int) -> None:
        pass


WHOLE = _Whole()


def _ops() -> list[BoundOp]:
    ops = []
    for key in (MUL, SILU):
        context = random_case(key, 0).bind().context
        ops.append(BoundOp(context, _Counts(context)))
    return ops


def _compile(prefer: str = "", **plugins: Any) -> SegmentChoice:
    table = build_kernel_table(manager(numpy=reference(), **plugins), prefer)
    return compile_segment(table.compilers, _ops(), n_threads=2)


def _raises(ops: Sequence[BoundOp]) -> Any:
    raise RuntimeError("out of registers")


def test_kernels_run_in_order_where_no_plugin_takes_the_segment() -> None:
    choice = _compile(shy=Compiler(lambda ops: None))
    assert isinstance(choice.segment, SequentialSegment)
    assert (choice.plugin, choice.reason, choice.failures) == (None, "no plugin takes it whole", ())
    _Counts.calls = []
    choice.segment.forward(3)
    choice.segment.forward(1)
    names = ["random-mul-0", "random-silu-0"]
    assert _Counts.calls == [(name, batch_size) for batch_size in (3, 1) for name in names]


def test_profiled_kernels_run_as_ever_and_each_has_its_seconds() -> None:
    segment = _compile().segment
    assert isinstance(segment, ProfiledSegment)
    assert not isinstance(WHOLE, ProfiledSegment)
    _Counts.calls = []
    seconds = segment.profile(3)
    assert _Counts.calls == [("random-mul-0", 3), ("random-silu-0", 3)]
    assert len(seconds) == 2
    assert all(second > 0 for second in seconds)


def test_a_plugin_may_take_the_whole_segment() -> None:
    seen: list[Sequence[BoundOp]] = []

    def take(ops: Sequence[BoundOp]) -> Any:
        seen.append(ops)
        return WHOLE

    choice = _compile(takes=Compiler(take))
    assert (choice.segment, choice.plugin) == (WHOLE, "takes")
    assert [op.context.key for op in seen[0]] == [MUL, SILU]


def test_the_plugin_with_the_highest_kernel_priority_is_asked_first() -> None:
    low, high = Compiler(lambda ops: _Whole(), (MUL, 5, "")), Compiler(lambda ops: WHOLE, (SILU, 6, ""))
    assert _compile(a=low, b=high).plugin == "b"
    assert _compile(a=Compiler(lambda ops: WHOLE), b=Compiler(lambda ops: WHOLE)).plugin == "a"


def test_preferred_plugins_are_asked_first_in_their_order() -> None:
    takers = {
        "a": Compiler(lambda ops: WHOLE, (MUL, 5, "x")),
        "b": Compiler(lambda ops: WHOLE, (MUL, 6, "")),
    }
    assert _compile("a,b", **takers).plugin == "a"
    assert _compile("b,a", **takers).plugin == "b"
    assert _compile("a:x", **takers).plugin == "a"
    takers["a"] = Compiler(lambda ops: None, (MUL, 5, ""))
    assert _compile("a,b", **takers).plugin == "b"
    assert _compile("a", **takers).plugin == "b"


def test_with_only_no_others_are_asked() -> None:
    takers = {
        "a": Compiler(lambda ops: WHOLE, (MUL, 5, "")),
        "b": Compiler(lambda ops: WHOLE, (MUL, 6, "")),
    }
    assert _compile("only:a", **takers).plugin == "a"
    assert _compile("only:numpy", **takers).plugin is None


def test_a_plugin_that_fails_to_compile_is_passed_over_and_on_record() -> None:
    choice = _compile(
        a=Compiler(_raises, (MUL, 9, "")),
        b=Compiler(lambda ops: "a segment", (MUL, 8, "")),
        c=Compiler(lambda ops: WHOLE, (MUL, 7, "")),
    )
    assert choice.plugin == "c"
    assert [str(failure) for failure in choice.failures] == [
        "plugin 'a' failed to compile a segment: RuntimeError: out of registers",
        "plugin 'b' failed to compile a segment: expected an object with forward(batch_size), got 'a segment'",
    ]
    alone = _compile(a=Compiler(_raises))
    assert alone.plugin is None
    assert len(alone.failures) == 1


def test_plugins_without_the_hook_are_not_asked() -> None:
    table = build_kernel_table(manager(numpy=reference(), plain=Plugin((MUL, 1, ""))))
    assert table.compilers == ()
