"""Recorded bytes of a link to a dialogue: what one end received, the other end must be able to send.

Each end is a real connection. The bytes of one direction are fed to the end that received them; its events
are sent by a connection in the place of the end that wrote them, which gives the bytes anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dllama_proto._base_connection import BaseConnection
from dllama_proto.connection import Connection, Role
from dllama_proto.events import NEED_DATA, PAUSED, Closed, PayloadChunk
from dllama_proto.peer import PeerConnection
from dllama_proto.sync_plan import LinkPlan
from dllama_proto.testing.dialogue import Dialogue, Said

__all__ = [
    "Cut",
    "Replay",
    "bytewise",
    "bytewise_but_payload",
    "in_random_pieces",
    "just_as_wanted",
    "replay",
    "replay_peers",
    "whole",
]

_S = TypeVar("_S")

#: How many bytes to feed next, of how many that are left.
Cut = Callable[[BaseConnection, int], int]


def whole(connection: BaseConnection, left: int) -> int:
    """Feed all at once."""
    return left


def bytewise(connection: BaseConnection, left: int) -> int:
    """Feed byte by byte."""
    return 1


def bytewise_but_payload(connection: BaseConnection, left: int) -> int:
    """Feed byte by byte, weights and slices in larger pieces."""
    return 1 if not connection.payload_size else min(connection.payload_size, 1021)


def just_as_wanted(connection: BaseConnection, left: int) -> int:
    """Feed what the connection asks for, as over a socket."""
    return connection.n_wanted


def in_random_pieces(seed: int) -> Cut:
    """Feed pieces of sizes that are likely to hurt; the same seed gives the same."""
    rng = random.Random(seed)  # noqa: S311 # repeatable, not secret
    return lambda connection, left: rng.choice((1, 2, 5, 8, 40, 56, 77, 1448, 65_536))


@dataclass(frozen=True)
class Replay(Generic[_S]):
    """A link by its two ends, roles or node indexes.

    ``dialogue`` is who said what, ``heard`` what each end understood, its end included, ``sent`` the bytes
    that each end encoded anew, which are the recorded ones as far as they were understood. Chunks of a
    piece are put together.
    """

    dialogue: Dialogue
    heard: dict[_S, list[Any]]
    sent: dict[_S, bytes]


def replay(
    from_root: bytes, from_worker: bytes, *, cut: Cut = whole, has_ended: bool = True
) -> Replay[Role]:
    """Decode both directions of a link between root and worker.

    Where the streams have not ended, what cannot be understood yet is left. Raises RemoteProtocolError, and
    LocalProtocolError where bytes are well-formed that no end may say.
    """
    dialogue: Dialogue = []
    root = _LinkEnd(Connection(Role.ROOT), from_worker, cut, has_ended, _noting(dialogue, Role.WORKER))
    worker = _LinkEnd(Connection(Role.WORKER), from_root, cut, has_ended, _noting(dialogue, Role.ROOT))
    _talk(worker, root)
    return Replay(
        dialogue,
        {Role.ROOT: root.events, Role.WORKER: worker.events},
        {Role.ROOT: bytes(root.sent), Role.WORKER: bytes(worker.sent)},
    )


def replay_peers(
    plan: LinkPlan, batch_sizes: Iterable[int], sent: bytes, received: bytes, *, cut: Cut = whole
) -> Replay[int]:
    """Decode both directions of a link between two workers, as ``plan.node_index`` sent and received them.

    ``batch_sizes`` are the root's forwards, which these links do not tell. The dialogue is empty: nobody
    has a role. Raises RemoteProtocolError.
    """
    ours = _LinkEnd(PeerConnection(plan), received, cut)
    theirs = _LinkEnd(PeerConnection(plan.reversed()), sent, cut)
    for batch_size in batch_sizes:
        for end in (ours, theirs):
            end.begin_forward(batch_size)
        _talk(ours, theirs)
    for end in (ours, theirs):
        end.connection.receive_eof()
    _talk(ours, theirs)
    names = plan.node_index, plan.reversed().node_index
    return Replay(
        [],
        dict(zip(names, (ours.events, theirs.events), strict=True)),
        dict(zip(names, (bytes(ours.sent), bytes(theirs.sent)), strict=True)),
    )


def _noting(dialogue: Dialogue, role: Role) -> Callable[[Any], None]:
    def note(event: Any) -> None:
        if isinstance(event, PayloadChunk) and isinstance(dialogue[-1].event, PayloadChunk):
            event = _joined(dialogue.pop().event, event)
        dialogue.append(Said(role, event))

    return note


class _LinkEnd:
    """One end of a link: what it receives, and every event and byte that comes of it."""

    def __init__(
        self,
        connection: Connection | PeerConnection,
        data: bytes,
        cut: Cut,
        has_ended: bool = True,
        note: Callable[[Any], None] = lambda event: None,
    ) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self.sent = bytearray()
        self._has_ended = has_ended
        self._left = data
        self._cut = cut
        self._note_said = note

    def begin_forward(self, batch_size: int) -> None:
        if isinstance(self.connection, PeerConnection):
            self.connection.begin_forward(batch_size)

    def advance(self, other: _LinkEnd) -> bool:
        """Understand as much as possible; let ``other`` send the same. Tell whether anything happened."""
        happened = False
        while True:
            event = self.connection.next_event()
            if event is NEED_DATA:
                n = min(max(1, self._cut(self.connection, len(self._left))), len(self._left))
                if n:
                    self.connection.receive_data(self._left[:n])
                    self._left = self._left[n:]
                elif self._has_ended:
                    self.connection.receive_eof()
                else:
                    return happened
            elif event is PAUSED or isinstance(event, Closed):
                if event is not PAUSED and event not in self.events:
                    self.events.append(event)
                return happened
            else:
                other.sent += other.connection.send(event)  # type: ignore[arg-type]
                self._note(event)
                happened = True

    def _note(self, event: Any) -> None:
        """Keep the event; chunks of one piece, whose cuts follow the feeding, become one."""
        self._note_said(event)
        if isinstance(event, PayloadChunk) and isinstance(self.events[-1], PayloadChunk):
            event = _joined(self.events.pop(), event)
        self.events.append(event)


def _joined(before: Any, after: PayloadChunk) -> PayloadChunk:
    return PayloadChunk(before.offset, memoryview(bytes(before.data) + bytes(after.data)))


def _talk(one: _LinkEnd, other: _LinkEnd) -> None:
    while one.advance(other) | other.advance(one):
        pass
