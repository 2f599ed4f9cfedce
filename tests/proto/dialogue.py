"""Decodes both directions of a link at once: what one end receives, the other end must be able to send.

Each end is a real connection. The recorded bytes of one direction are fed to the end that received them; its
events are sent by a connection in the place of the end that wrote them, which gives the bytes anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from dllama_proto._base_connection import BaseConnection
from dllama_proto.connection import Connection, Role
from dllama_proto.events import NEED_DATA, PAUSED, Closed, PayloadChunk
from dllama_proto.messages import ControlPacket, NetConfig, NodeConfig
from dllama_proto.peer import PeerConnection
from dllama_proto.sync_plan import plan_link
from tests.helpers.captures import Session

__all__ = [
    "Chooser",
    "End",
    "bytewise",
    "bytewise_but_payload",
    "decode_both",
    "decode_peers",
    "decode_root",
    "in_random_pieces",
    "just_as_wanted",
    "whole",
]

#: How many bytes to feed next, of how many that are left.
Chooser = Callable[[BaseConnection, int], int]


def whole(link: BaseConnection, left: int) -> int:
    return left


def bytewise(link: BaseConnection, left: int) -> int:
    return 1


def bytewise_but_payload(link: BaseConnection, left: int) -> int:
    return 1 if not link.payload_size else min(link.payload_size, 1021)


def just_as_wanted(link: BaseConnection, left: int) -> int:
    return link.n_wanted


def in_random_pieces(seed: int) -> Chooser:
    rng = random.Random(seed)
    return lambda link, left: rng.choice((1, 2, 5, 8, 40, 56, 77, 1448, 65_536))


class End:
    """One end of a link: what it receives, and every event and byte that comes of it."""

    def __init__(
        self, link: Connection | PeerConnection, data: bytes, choose: Chooser, *, ended: bool = True
    ) -> None:
        self.link = link
        self._ended = ended
        self.events: list[Any] = []
        self.sent = bytearray()
        self._left = data
        self._choose = choose

    def advance(self, other: End) -> bool:
        """Understand as much as possible; let ``other`` send the same. Tell whether anything happened."""
        happened = False
        while True:
            event = self.link.next_event()
            if event is NEED_DATA:
                n = min(max(1, self._choose(self.link, len(self._left))), len(self._left))
                if n:
                    self.link.receive_data(self._left[:n])
                    self._left = self._left[n:]
                elif self._ended:
                    self.link.receive_eof()
                else:
                    return happened
            elif event is PAUSED or isinstance(event, Closed):
                if event is not PAUSED and event not in self.events:
                    self.events.append(event)
                return happened
            else:
                other.sent += other.link.send(event)  # type: ignore[arg-type]
                self._note(event)
                happened = True

    def _note(self, event: Any) -> None:
        """Keep the event; chunks of one piece, whose cuts follow the feeding, become one."""
        if isinstance(event, PayloadChunk) and isinstance(self.events[-1], PayloadChunk):
            before = self.events[-1]
            assert event.offset == before.offset + len(before.data)
            event = PayloadChunk(before.offset, memoryview(bytes(before.data) + bytes(event.data)))
            self.events.pop()
        self.events.append(event)


def _talk(one: End, other: End) -> None:
    while one.advance(other) | other.advance(one):
        pass


def decode_root(session: Session, worker: int, choose: Chooser) -> tuple[End, End]:
    """Decode the link between the root and a worker; return the worker's end, then the root's."""
    return decode_both(session.data(0, worker), session.data(worker, 0), choose)


def decode_both(
    from_root: bytes, from_worker: bytes, choose: Chooser, *, ended: bool = True
) -> tuple[End, End]:
    """Decode both directions of a link; return the worker's end, then the root's.

    Where the streams have not ended, what cannot be understood yet is left.
    """
    at_worker = End(Connection(Role.WORKER), from_root, choose, ended=ended)
    at_root = End(Connection(Role.ROOT), from_worker, choose, ended=ended)
    _talk(at_worker, at_root)
    return at_worker, at_root


def decode_peers(session: Session, one: int, other: int, choose: Chooser) -> tuple[End, End]:
    """Decode the link between two workers; the forwards are those of the root's control packets."""
    events = decode_root(session, one, whole)[0].events
    net = next(event for event in events if isinstance(event, NetConfig))
    node = next(event for event in events if isinstance(event, NodeConfig))
    plan = plan_link(net, node, other)
    ends = (
        End(PeerConnection(plan), session.data(other, one), choose),
        End(PeerConnection(plan.reversed()), session.data(one, other), choose),
    )
    for packet in events:
        if isinstance(packet, ControlPacket) and not packet.is_stop:
            for end in ends:
                assert isinstance(end.link, PeerConnection)
                end.link.begin_forward(packet.batch_size)
            _talk(*ends)
    for end in ends:
        end.link.receive_eof()
    _talk(*ends)
    return ends
