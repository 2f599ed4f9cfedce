"""One link without a capture: what its ends say, byte by byte, and what the dissection makes of it.

The session is that of :mod:`tests.proto.stages`: the root (``10.0.0.1``) and worker 2 of a small cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import ip_address
from typing import TypeVar

from dllama_proto.connection import Connection, Role
from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import (
    MessageEvent,
    MissingEvent,
    SliceEvent,
    Stream,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.root_link import RootLinkDecoder
from dllama_proto.dissect.session import Session
from dllama_proto.dissect.tcp import Conversation, Direction, TcpStreams
from dllama_proto.endpoint import Endpoint
from dllama_proto.events import Event
from tests.proto import configs
from tests.proto.stages import SCRIPT, Pair

__all__ = [
    "Given",
    "Reader",
    "RootLink",
    "account",
    "check_every_byte",
    "conversation",
    "half_of",
    "said",
    "streams_of",
    "whole_script",
]


def conversation(
    number: int = 0, source: str = "10.0.0.1", port: int = 4000, destination: str = "10.0.0.3"
) -> Conversation:
    """Return a connection to port 9990 whose dialler and beginning are known."""
    ends = ip_address(source).packed + ip_address(destination).packed
    key = ends + port.to_bytes(2, "big") + (9990).to_bytes(2, "big")
    streams = TcpStreams(lambda conversation: None, lambda time, direction, offset, size: None)
    made = Conversation(streams, number, key, 0)
    made.dialled = True
    made.dialler.begin(1000, known=True)
    made.listener.begin(5000, known=True)
    return made


def streams_of(made: Conversation) -> tuple[Stream, Stream]:
    """Return both streams of a connection, the dialler's first."""
    directions = made.dialler, made.listener
    one, two = (
        Stream(made.number, Endpoint(d.source, d.source_port), Endpoint(d.destination, d.destination_port))
        for d in directions
    )
    return one, two


def account() -> tuple[Account, list[WireEvent]]:
    """Return an account, and the events that it will report."""
    events: list[WireEvent] = []
    return Account(events.append), events


class Reader:
    """Stands in for a decoder: notes when it is called."""

    def __init__(self) -> None:
        self.n_moved = 0
        self.ends: list[tuple[int, bool]] = []

    def moved(self, half: Half[Connection]) -> None:
        self.n_moved += 1

    def closed(self, half: Half[Connection], time: int, *, reset: bool) -> None:
        self.ends.append((time, reset))


def half_of(link: Connection, kept: Account) -> Half[Connection]:
    """Return the root's direction without a decoder: ``link`` is the worker's end; the other half faces it."""
    made = conversation()
    streams = streams_of(made)
    half = Half(made.dialler, streams[0], link, Reader(), kept)
    half.other = Half(made.listener, streams[1], Connection(Role.ROOT), Reader(), kept)
    half.other.other = half
    return half


@cache
def said() -> tuple[tuple[Role, bytes, Event], ...]:
    """Return what the ends say in a whole session: who, the bytes, the event that they are."""
    pair, found = Pair(), []
    for role, event in SCRIPT:
        data = bytes(pair.ends[role].send(event))
        other = pair.ends[Role.WORKER if role is Role.ROOT else Role.ROOT]
        other.receive_data(data)
        other.next_event()
        found.append((role, data, event))
    return tuple(found)


def whole_script() -> list[tuple[Role, bytes]]:
    """Return the bytes of a whole session, in their order."""
    return [(role, data) for role, data, _ in said()]


E = TypeVar("E", bound=WireEvent)

#: What a direction was given: bytes (how many, when captured), or a gap (how many, None).
Given = list[tuple[int, int | None]]


class RootLink:
    """A link between root and worker under its decoder; everything said is a nanosecond later than the last."""

    def __init__(self) -> None:
        self.account, self.events = account()
        made = conversation()
        self.streams = streams_of(made)
        self.session = Session(0, configs.GREETING, made.dialler, self.account.notice)
        node = configs.GREETING.worker_index + 1
        directions = made.dialler, made.listener
        self.decoder = RootLinkDecoder(self.session, self.account, directions, self.streams, node)
        self.session.add_root_link(self.decoder, configs.GREETING, made.dialler)
        self.halves = dict(zip((Role.ROOT, Role.WORKER), self.decoder.halves, strict=True))
        self.given: dict[Role, Given] = {role: [] for role in Role}
        self.time = 100

    def direction(self, role: Role) -> Direction:
        """Return the direction of what an end says."""
        return self.halves[role].direction

    def say(self, role: Role, data: bytes) -> None:
        """Give the decoder bytes that an end says, captured at once."""
        if not data:
            return
        self.time += 1
        self.given[role].append((len(data), self.time))
        self.direction(role).n_packets += 1
        self.halves[role].data(self.time, memoryview(data))

    def lose(self, role: Role, n: int) -> None:
        """Tell the decoder that ``n`` bytes of an end were not captured."""
        self.time += 1
        self.given[role].append((n, None))
        self.direction(role).n_packets += 1
        self.halves[role].missing(self.time, n)

    def end(self, role: Role) -> None:
        """Tell the decoder that an end says no more."""
        self.time += 1
        self.direction(role).ended = True
        self.halves[role].end(self.time, reset=False)

    def finish(self) -> None:
        """End the capture, and check that every byte is accounted for."""
        self.decoder.finish()
        for role, half in self.halves.items():
            check_every_byte(self.given[role], half.stream, self.events)

    def of_type(self, kind: type[E]) -> list[E]:
        """Return the events of a type."""
        return [event for event in self.events if isinstance(event, kind)]


def _bytes(given: Given) -> Iterator[int | None]:
    for n, time in given:
        yield from (time for _ in range(n))


def check_every_byte(given: Given, stream: Stream, events: Iterable[WireEvent]) -> None:
    """Check that every byte given is part of one event, and every one missing is told to be, and when.

    A gap may lie within a weight or slice, which then says so; nothing else covers a byte twice.
    """
    times = list(_bytes(given))
    captured = [0] * len(times)
    missing = [0] * len(times)
    for event in events:
        if event.stream is not stream:
            continue
        inside = range(event.offset, event.offset + event.size)
        match event:
            case MissingEvent():
                for at in inside:
                    missing[at] += 1
            case MessageEvent() | WeightEvent() | SliceEvent() | UnexplainedEvent():
                for at in inside:
                    captured[at] += 1
                lacking = sum(times[at] is None for at in inside)
                assert lacking == getattr(event, "missing", 0), event
                if inside and times[inside[0]] is not None:
                    assert event.began == times[inside[0]], event
                if inside and not lacking:
                    assert event.time == times[inside[-1]], event
            case _:
                pass
    assert [n for n, time in zip(captured, times, strict=True) if time is not None and n != 1] == []
    assert [n for n, time in zip(missing, times, strict=True) if n != (time is None)] == []
    n_missing = sum(missing)
    assert stream.missing == n_missing
    assert stream.explained + stream.unexplained == len(times) - n_missing
