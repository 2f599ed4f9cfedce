"""What the ops of a node share: work that is done once, and the order to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dllama_ops import BaseKernel, BoundOp, KernelKey
from dllama_ops.scope import ForwardStopped, NodeScope
from dllama_ops.segments import SequentialSegment
from dllama_ops.testing import random_case
from dllama_proto.enums import OpCode, OpQuantType

_CONTEXT = random_case(KernelKey(OpCode.SILU, OpQuantType.F32_F32_F32), 0).bind().context


def test_of_several_works_with_a_key_only_the_last_is_done() -> None:
    scope, done = NodeScope(), list[str]()

    def work(name: str) -> Iterator[None]:
        for part in "ab":
            done.append(name + part)
            yield

    for key, name in ((1, "first"), (2, "other"), (1, "last")):
        scope.once(key, lambda name=name: work(name))  # type: ignore[misc]
    n_pieces = sum(1 for _ in scope.shared_work())
    assert done == ["lasta", "lastb", "othera", "otherb"]
    assert n_pieces == 4
    assert list(scope.shared_work()) == []


def test_who_asks_to_be_told_of_a_stop_is_told_once() -> None:
    scope, told = NodeScope(), list[str]()
    scope.on_stop(lambda: told.append("before"))
    scope.check()
    scope.stop()
    scope.stop()
    scope.on_stop(lambda: told.append("after"))
    assert told == ["before", "after"]
    with pytest.raises(ForwardStopped):
        scope.check()


@pytest.mark.parametrize("profiled", [False, True])
def test_kernels_one_by_one_stop_between_two(profiled: bool) -> None:
    scope, ran = NodeScope(), list[int]()

    class Noting(BaseKernel):
        def forward(self, batch_size: int) -> None:
            ran.append(batch_size)
            if len(ran) == 3:
                scope.stop()

    context = replace(_CONTEXT, scope=scope)
    segment = SequentialSegment([BoundOp(context, Noting(context)) for _ in range(10)])
    run = segment.profile if profiled else segment.forward
    with pytest.raises(ForwardStopped):
        run(1)
    assert ran == [1, 1, 1]
    with pytest.raises(ForwardStopped):
        run(1)
    assert ran == [1, 1, 1]
