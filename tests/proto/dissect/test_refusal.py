"""A worker that refuses, in a capture: what it says is understood, and what the root said too late is not."""

from __future__ import annotations

import io

import pytest

from dllama_proto._phases import REFUSAL_PHASES
from dllama_proto.connection import Phase, Role
from dllama_proto.dissect.events import (
    ClosedEvent,
    FaultEvent,
    Kind,
    MessageEvent,
    UnexplainedEvent,
    WeightEvent,
)
from dllama_proto.messages import Refusal
from dllama_proto.show.summary import Summary
from dllama_proto.show.summary_text import print_summary, summary_json
from tests.proto.dissect.rig import RootLink, said
from tests.proto.stages import Pair

_REFUSAL = Refusal("the configuration needs too much\x1b[31m")


def _data() -> bytes:
    return bytes(Pair().advance_to(Phase.GREETING_ACK).worker.send(_REFUSAL))


def _link_after(n_said: int) -> RootLink:
    link = RootLink()
    for role, data, _ in said()[:n_said]:
        link.say(role, data)
    return link


def _phase_after(n_said: int) -> Phase:
    pair = Pair()
    for role, _, event in said()[:n_said]:
        pair.say(role, event)
    return pair.root.phase


_REFUSABLE = [n for n in range(1, 14) if _phase_after(n) in REFUSAL_PHASES]


@pytest.mark.parametrize("n_said", _REFUSABLE)
def test_a_refusal_is_a_message_wherever_it_comes(n_said: int) -> None:
    link = _link_after(n_said)
    link.say(Role.WORKER, _data())
    link.end(Role.WORKER)
    link.finish()
    assert [e.message for e in link.of_type(MessageEvent) if e.kind is Kind.REFUSAL] == [_REFUSAL]
    assert [e.phase for e in link.of_type(ClosedEvent)] == [Phase.REFUSED]
    assert not link.of_type(FaultEvent)
    assert not link.of_type(UnexplainedEvent)


@pytest.mark.parametrize("cut", range(1, 20))
def test_it_may_come_in_parts(cut: int) -> None:
    link = _link_after(6)
    link.say(Role.WORKER, _data()[:cut])
    link.say(Role.WORKER, _data()[cut:])
    link.finish()
    assert [e.message for e in link.of_type(MessageEvent) if e.kind is Kind.REFUSAL] == [_REFUSAL]


@pytest.mark.parametrize("n_said", _REFUSABLE)
@pytest.mark.parametrize("came", [0, 1, 5, 30])
def test_what_the_root_says_meanwhile_is_accounted_for(n_said: int, came: int) -> None:
    link = _link_after(n_said)
    role, data, _ = said()[n_said]
    if role is not Role.ROOT:
        return
    link.say(Role.ROOT, data[: min(came, len(data) - 1)])
    link.say(Role.WORKER, _data())
    link.say(Role.ROOT, data[min(came, len(data) - 1) :])
    link.finish()
    assert [e.message for e in link.of_type(MessageEvent) if e.kind is Kind.REFUSAL] == [_REFUSAL]
    assert {e.reason for e in link.of_type(UnexplainedEvent)} == {"the worker has refused"}
    assert not link.of_type(FaultEvent)


def test_a_weight_under_way_is_reported_as_far_as_it_came() -> None:
    n_said = next(n for n in _REFUSABLE if _phase_after(n) is Phase.WEIGHT_DATA)
    link = _link_after(n_said)
    link.say(Role.ROOT, said()[n_said][1][:7])
    link.say(Role.WORKER, _data())
    link.finish()
    assert [e.data_size for e in link.of_type(WeightEvent)] == [7]


def test_the_summary_says_who_refused_and_why() -> None:
    link = _link_after(1)
    link.say(Role.WORKER, _data())
    link.finish()
    summary = Summary()
    for event in link.events:
        summary.add(event)
    text = io.StringIO()
    print_summary(summary, text)
    assert "node 2 refused: the configuration needs too much\\x1b[31m\n" in text.getvalue()
    [session] = summary_json(summary)["sessions"]
    assert session["refusals"] == [{"node": 2, "reason": _REFUSAL.reason}]
