"""Forwards are added up in one way, whoever counts them."""

from __future__ import annotations

import pytest

from dllama_worker.node.forward_times import ForwardTimes


def test_forwards_add_up() -> None:
    times = ForwardTimes()
    times.add(32, 0.5, 0.25)
    times.add(1, 0.125, 0.0)
    assert times == ForwardTimes(rows=33, forwards=2, op_seconds=0.625, sync_seconds=0.25)
    assert times.seconds == 0.875
    assert times.rows_per_second == pytest.approx(33 / 0.875)


def test_several_forwards_can_be_counted_at_once() -> None:
    times = ForwardTimes()
    times.add(40, 2.0, 1.0, forwards=9)
    assert (times.rows, times.forwards) == (40, 9)


def test_a_total_leaves_its_parts_alone() -> None:
    prefill, decode = ForwardTimes(64, 2, 1.0, 0.5), ForwardTimes(7, 7, 2.0, 0.25)
    total = ForwardTimes.total(prefill, decode)
    assert total == ForwardTimes(71, 9, 3.0, 0.75)
    total.add(1, 1.0, 1.0)
    assert (prefill, decode) == (ForwardTimes(64, 2, 1.0, 0.5), ForwardTimes(7, 7, 2.0, 0.25))
    assert ForwardTimes.total() == ForwardTimes()


def test_before_the_first_forward_nothing_is_divided_by_zero() -> None:
    assert ForwardTimes().rows_per_second == 0.0
