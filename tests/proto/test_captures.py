"""The recordings are whole, and are read as what they are."""

from __future__ import annotations

import pytest

from tests.helpers import captures


def test_every_listed_case_is_found() -> None:
    assert captures.CASES == (
        "gqa-q40-4n",
        "llama31-q40-2n",
        "qwen3-q40-2n",
        "qwen3-q40-4n",
        "qwen3_moe-q40-2n",
        "tiny-f32-2n",
        "tiny-f32-4n",
        "tiny-q40-2n",
        "tiny-q40-2n-batch",
    )


@pytest.mark.parametrize("case", captures.CASES)
def test_a_session_has_both_directions_of_every_link(case: str) -> None:
    session = captures.load(case)
    links = {(stream.sender, stream.receiver) for stream in session.streams}
    nodes = range(session.n_nodes)
    assert links == {(a, b) for a in nodes for b in nodes if a != b}
    assert session.control_packets[-1][1] == 0
    for stream in session.streams:
        assert stream.dialled_by == min(stream.sender, stream.receiver)


@pytest.mark.parametrize(("case", "ended"), [("tiny-q40-2n", True), (captures.CUT_CASE, False)])
def test_flows_tell_who_dialled_and_whether_the_stream_ended(case: str, ended: bool) -> None:
    flows = captures.read_flows(case)
    assert [flow.dialled for flow in flows] == [True, False]
    assert [flow.ended for flow in flows] == [ended, ended]
    assert all(flow.data for flow in flows)
