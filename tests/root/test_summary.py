"""What a run took, in words: rates, shares, and what workers tell of themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from dllama_worker.node.forward_times import ForwardTimes
from dllama_worker.root.session import RootSession
from dllama_worker.root.summary import node_figures, times_figures, write_summary


def _session(*told: ForwardTimes) -> RootSession:
    """One remote worker, then one local worker for each that told something."""
    n_workers = 1 + len(told)
    links = {
        node: SimpleNamespace(sent_bytes=100 * node, received_bytes=10 * node)
        for node in range(1, n_workers + 1)
    }
    addresses = [f"10.0.0.{node}:9990" for node in range(1, n_workers + 1)]
    session: Any = SimpleNamespace(
        cluster=SimpleNamespace(addresses=addresses, links=links),
        local_workers=SimpleNamespace(addresses=addresses[1:], times=lambda: list(told)),
    )
    return cast(RootSession, session)


def test_times_as_json() -> None:
    assert times_figures(ForwardTimes(30, 3, 1.0, 0.5)) == {
        "tokens": 30,
        "op_seconds": 1.0,
        "sync_seconds": 0.5,
        "tokens_per_second": 20.0,
    }
    assert times_figures(ForwardTimes())["tokens_per_second"] == 0.0


def test_only_local_workers_tell_where_their_time_went() -> None:
    session = _session(ForwardTimes(30, 3, 0.75, 0.25), ForwardTimes())
    root, remote, local, silent = node_figures(session, ForwardTimes(30, 3, 1.0, 0.5))
    assert (root["node"], root["tokens"]) == (0, 30)
    assert (root["sent_bytes"], root["received_bytes"]) == (600, 60)
    assert "op_seconds" not in remote
    assert (remote["sent_bytes"], remote["received_bytes"]) == (10, 100)
    assert (local["tokens"], local["op_seconds"], local["sync_seconds"]) == (30, 0.75, 0.25)
    assert "tokens" not in silent


def test_the_summary_in_words() -> None:
    session = _session(ForwardTimes(30, 3, 0.75, 0.25))
    total = ForwardTimes(30, 3, 1.0, 0.5)
    lines = write_summary(total, ForwardTimes(1, 1, 0.5, 0.0), node_figures(session, total))
    assert lines[0] == "Evaluation: 30 tokens, 20.00 tokens/s (50.00 ms/token), sync 33 %"
    assert lines[1] == "Prediction: 1 token, 2.00 tokens/s (500.00 ms/token), sync 0 %"
    assert lines[3].split() == ["0", "(root)", "1.00", "s", "0.50", "s"]
    assert lines[4].split() == ["1", "(10.0.0.1:9990)", "-", "-", "10", "B", "100", "B"]
    assert lines[5].split()[2:6] == ["0.75", "s", "0.25", "s"]


def test_a_phase_without_tokens_is_said_to_be_empty() -> None:
    assert write_summary(ForwardTimes(), ForwardTimes(), [])[0] == "Evaluation: nothing"
