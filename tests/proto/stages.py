"""Brings both ends of a root-worker link to any phase, by the small cluster of :mod:`tests.proto.configs`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from dllama_proto.connection import Connection, Phase, Role
from dllama_proto.events import PAUSED, Ack, AckKind, Event, NoEvent, PayloadChunk, SliceData, WeightsEnd
from dllama_proto.limits import DEFAULT_LIMITS, Limits
from dllama_proto.messages import ControlPacket
from dllama_proto.sync_plan import plan_link
from tests.proto import configs

__all__ = ["PHASES", "SCRIPT", "Pair", "put", "slices"]

STOP = ControlPacket(99, 0)


def slices(batch_size: int = configs.CONTROL.batch_size) -> list[tuple[Role, Event]]:
    """Return the slices of a forward: the root's in their order, then the worker's."""
    plan = plan_link(configs.NET, configs.NODE, 0)
    found: list[tuple[Role, Event]] = []
    for role, transfers in ((Role.ROOT, plan.receives), (Role.WORKER, plan.sends)):
        for transfer in transfers:
            for row in range(batch_size):
                data = bytes([row + 1]) * transfer.size
                found.append((role, SliceData(transfer, row, memoryview(data))))
    return found


#: A whole session: who says what.
SCRIPT: list[tuple[Role, Event]] = [
    (Role.ROOT, configs.GREETING),
    (Role.WORKER, Ack(AckKind.GREETING)),
    (Role.ROOT, Ack(AckKind.ROOT_READY)),
    (Role.ROOT, Ack(AckKind.NET_CONFIG_AHEAD)),
    (Role.ROOT, configs.NET),
    (Role.WORKER, Ack(AckKind.NET_CONFIG)),
    (Role.ROOT, Ack(AckKind.NODE_CONFIG_AHEAD)),
    (Role.ROOT, configs.NODE),
    (Role.WORKER, Ack(AckKind.NODE_CONFIG)),
    (Role.ROOT, configs.WEIGHT),
    (Role.ROOT, PayloadChunk(configs.WEIGHT.offset, memoryview(bytes(range(36))))),
    (Role.ROOT, WeightsEnd()),
    (Role.WORKER, Ack(AckKind.WEIGHTS)),
    (Role.ROOT, configs.CONTROL),
    *slices(),
    (Role.ROOT, STOP),
]

#: Every phase that a session passes through.
PHASES = tuple(phase for phase in Phase if phase is not Phase.BROKEN)


class Pair:
    """Both ends of a link; whatever one says, the other hears at once. The limits are the worker's."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.ends = {Role.ROOT: Connection(Role.ROOT), Role.WORKER: Connection(Role.WORKER, limits)}

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
