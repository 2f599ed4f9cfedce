"""The phase tables are total, every phase can be reached, and readers cover what can be received."""

from __future__ import annotations

import pytest

from dllama_proto._phases import ACK_PHASES, FIRST_PHASE, PEER_LINK, ROOT_LINK, AckKind, Phase, Role, Signal
from dllama_proto._readers import READERS

_TABLES = {"root": (ROOT_LINK, FIRST_PHASE), "peer": (PEER_LINK, Phase.IDLE)}

#: Phases without a message of their own: payloads, and the ends.
_SILENT = {Phase.WEIGHT_DATA, Phase.SLICES, Phase.CLOSED, Phase.BROKEN}


def test_the_root_link_has_every_phase() -> None:
    assert set(ROOT_LINK) == set(Phase)


@pytest.mark.parametrize("name", _TABLES)
def test_every_phase_leads_into_the_table_and_is_reached(name: str) -> None:
    table, first = _TABLES[name]
    reached = {first, Phase.BROKEN}
    while True:
        further = {after for phase in reached for after in table[phase].next.values()} | reached
        if further == reached:
            break
        reached = further
    assert reached == set(table)


@pytest.mark.parametrize("phase", [Phase.CLOSED, Phase.BROKEN])
def test_the_ends_lead_nowhere(phase: Phase) -> None:
    assert not ROOT_LINK[phase].next
    assert ROOT_LINK[phase].speaker is None


def test_every_signal_is_used() -> None:
    assert {signal for turn in ROOT_LINK.values() for signal in turn.next} == set(Signal)


def test_acks_are_told_apart_by_their_phase() -> None:
    assert sorted(ACK_PHASES.values(), key=lambda kind: kind.value) == list(AckKind)
    assert set(ACK_PHASES) == {phase for phase, turn in ROOT_LINK.items() if Signal.ACK in turn.next}


def test_every_phase_in_which_a_message_comes_has_a_reader() -> None:
    assert set(READERS) | _SILENT >= {p for p, turn in ROOT_LINK.items() if turn.speaker is not None}
    assert not set(READERS) & _SILENT


def test_the_worker_only_answers() -> None:
    spoken = {phase for phase, turn in ROOT_LINK.items() if turn.speaker is Role.WORKER}
    assert spoken == {Phase.GREETING_ACK, Phase.NET_CONFIG_ACK, Phase.NODE_CONFIG_ACK, Phase.WEIGHTS_ACK}
