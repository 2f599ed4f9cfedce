"""Brings both ends of a root-worker link to any phase, by the small cluster of :mod:`tests.proto.configs`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.events import PAUSED, Event, NoEvent, SliceData
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.messages import Refusal
from dllama_proto.sync_plan import Transfer
from dllama_proto.testing import session_dialogue
from tests.proto import configs

__all__ = ["PHASES", "REFUSAL", "SCRIPT", "Pair", "put", "slices"]

REFUSAL = Refusal("this worker is in a session with another root")


def _values(transfer: Transfer, row: int) -> bytes:
    return bytes([row + 1]) * transfer.size


#: A whole session: who says what.
SCRIPT: list[tuple[Role, Event]] = [
    (said.role, said.event)
    for said in session_dialogue(
        configs.GREETING,
        configs.NET,
        configs.NODE,
        [(configs.WEIGHT, bytes(range(36)))],
        [configs.CONTROL],
        _values,
    )
]


def slices() -> list[tuple[Role, Event]]:
    """Return the slices of the session's forward: the root's in their order, then the worker's."""
    return [(role, event) for role, event in SCRIPT if isinstance(event, SliceData)]


#: Every phase that a session passes through.
PHASES = tuple(phase for phase in Phase if phase is not Phase.BROKEN)


class Pair:
    """Both ends of a link; whatever one says, the other hears at once. ``limits`` are the worker's."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, root_limits: Limits = DEFAULT_LIMITS) -> None:
        self.ends = {
            Role.ROOT: Connection(Role.ROOT, root_limits),
            Role.WORKER: Connection(Role.WORKER, limits),
        }

    @property
    def root(self) -> Connection:
        return self.ends[Role.ROOT]

    @property
    def worker(self) -> Connection:
        return self.ends[Role.WORKER]

    def say(self, role: Role, event: Event) -> Event | NoEvent:
        """Send an event and return what the other end makes of it."""
        other = self.ends[Role.WORKER if role is Role.ROOT else Role.ROOT]
        other.receive_data(bytes(self.ends[role].send(event)))
        return other.next_event()

    def advance_to(self, phase: Phase) -> Pair:
        """Speak by the script until both ends are in a phase."""
        if phase is Phase.REFUSED:
            self.advance_to(Phase.GREETING_ACK).say(Role.WORKER, REFUSAL)
            return self
        for role, event in SCRIPT:
            if self.worker.phase is phase and self.root.phase is phase:
                return self
            assert self.say(role, event) == event
        assert self.worker.phase is self.root.phase is phase is Phase.CLOSED
        assert self.root.next_event() is not PAUSED
        return self


def put(record: Any, path: str, value: Any) -> Any:
    """Return a record with the field at ``path`` (``segments[1].ops[0].index``) replaced."""
    head, _, tail = path.partition(".")
    name, *indexes = re.findall(r"\w+", head)
    old = getattr(record, name)
    if not indexes:
        return replace(record, **{name: put(old, tail, value) if tail else value})
    items = list(old)
    index = int(indexes[0])
    items[index] = put(items[index], tail, value) if tail else value
    return replace(record, **{name: tuple(items)})
