"""A connection until it is clear what it is: it keeps what was said, then hands it to the link it has become.

Decided by the dialler's first bytes (a greeting makes a link between root and worker), or by who finds links.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from dllama_proto._phases import Phase, Role
from dllama_proto.connection import Connection
from dllama_proto.dissect.account import Account, UnexplainedRun
from dllama_proto.dissect.events import HOW_TO_RECORD, LinkKind, Stream
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.endpoint import Endpoint
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.messages import Greeting

__all__ = ["Undecided", "Verdicts"]

#: What a connection may say before it must be clear what it is: a greeting with as many peers as may be.
_MAX_UNDECIDED = 256 * 1024


class Verdicts(Protocol):
    """What carries out a verdict on a connection: the finder of links."""

    account: Account
    streams: list[Stream]

    def become_root_link(self, undecided: Undecided, dialler: Direction, greeting: Greeting) -> None:
        """Make it the link between a root and the worker that the greeting names."""

    def become_peer_link(self, undecided: Undecided) -> bool:
        """Make it a link between workers, if it can be one; tell whether it is."""

    def leave(self, undecided: Undecided, link: LinkKind) -> None:
        """Note that it is no link of a cluster, or that nothing can be said of it."""


class Undecided:
    """A connection that is not identified yet: keeps its bytes."""

    def __init__(self, verdicts: Verdicts, conversation: Conversation) -> None:
        self._verdicts = verdicts
        self.conversation = conversation
        self._sinks = (
            _Keeper(self, conversation.dialler),
            _Keeper(self, conversation.listener),
        )
        for sink in self._sinks:
            sink.direction.sink = sink
        self.streams = tuple(
            Stream(
                conversation.number,
                Endpoint(sink.direction.source, sink.direction.source_port),
                Endpoint(sink.direction.destination, sink.direction.destination_port),
            )
            for sink in self._sinks
        )
        self._events: deque[tuple[_Keeper, int, memoryview | int | bool]] = deque()
        self._n_bytes = 0
        self._may_be_root = True

    @property
    def has_data(self) -> bool:
        """Whether anything was said."""
        return bool(self._n_bytes)

    @property
    def is_closed(self) -> bool:
        """Whether an end has gone."""
        return any(sink.direction.ended for sink in self._sinks)

    def streams_of(self, directions: tuple[Direction, Direction]) -> tuple[Stream, Stream]:
        """Return the streams of these directions."""
        one, two = self.streams
        return (one, two) if directions[0] is self._sinks[0].direction else (two, one)

    def note(self, keeper: _Keeper, time: int, what: memoryview | int | bool) -> None:
        """Keep what came, and decide if that is possible now."""
        self._events.append((keeper, time, what))
        if isinstance(what, bool):
            return
        self._n_bytes += what if isinstance(what, int) else len(what)
        self._decide()

    def _decide(self) -> None:
        if self._may_be_root:
            dialler, verdict = self._greeting()
            if isinstance(verdict, Greeting):
                self._verdicts.become_root_link(self, dialler, verdict)
                return
            if verdict is None and self._n_bytes < _MAX_UNDECIDED:
                return
            self._may_be_root = False
        if self._verdicts.become_peer_link(self):
            return
        if not any(sink.direction.begun for sink in self._sinks):
            self._give_up("the capture begins in the middle of this connection", f"; {HOW_TO_RECORD}")
        elif any(sink.begins_missing for sink in self._sinks):
            self._give_up("the first bytes of this connection were not captured", f"; {HOW_TO_RECORD}")
        else:
            self._ignore()

    def _greeting(self) -> tuple[Direction, Greeting | RemoteProtocolError | None]:
        """Return who may have greeted, and the greeting; None where more bytes are needed to tell."""
        verdict: Greeting | RemoteProtocolError | None = None
        direction = self.conversation.dialler
        for sink in self._sinks:
            if self.conversation.dialled and sink.direction is not self.conversation.dialler:
                continue
            parts = [
                what for keeper, _, what in self._events if keeper is sink and not isinstance(what, bool)
            ]
            if not parts:
                continue
            direction, verdict = sink.direction, _read_greeting(parts)
            if isinstance(verdict, Greeting):
                break
        else:
            if verdict is None and self._said_by_listener():
                # A root speaks first: what a listener says first is a slice.
                verdict = RemoteProtocolError(
                    "Greeting", expected="the root to speak first", got="the listener"
                )
        return direction, verdict

    def _said_by_listener(self) -> bool:
        first = next((keeper for keeper, _, what in self._events if not isinstance(what, bool)), None)
        return (
            self.conversation.dialled
            and first is not None
            and (first.direction is not self.conversation.dialler)
        )

    def replay(self) -> None:
        """Give the kept bytes to the new reader."""
        events, self._events = self._events, deque()
        for keeper, time, what in events:
            sink = keeper.direction.sink
            if sink is None or isinstance(sink, _Keeper):
                raise RuntimeError(
                    "a connection was decided without a reader: a bug of the finder of links"
                )
            if isinstance(what, bool):
                sink.end(time, reset=what)
            elif isinstance(what, int):
                sink.missing(time, what)
            else:
                sink.data(time, what)

    def _ignore(self) -> None:
        for sink in self._sinks:
            sink.direction.sink = None
        self._verdicts.leave(self, LinkKind.FOREIGN)

    def _give_up(self, reason: str, advice: str = "") -> None:
        """Count what this connection says as not understood."""
        self._verdicts.leave(self, LinkKind.UNKNOWN)
        self._verdicts.account.notice(
            self.conversation.time,
            self.streams[0],
            f"{reason}: nothing of it can be understood{advice}",
        )
        self._verdicts.streams += self.streams
        for sink, stream in zip(self._sinks, self.streams, strict=True):
            sink.direction.sink = _Lost(self._verdicts.account, stream, reason)
        self.replay()

    def finish(self) -> None:
        """Decide what was not decided, and account for all that was given up: the capture has ended."""
        if self._n_bytes and self._may_be_root:
            self._may_be_root = False
            if self._verdicts.become_peer_link(self):
                return
            self._give_up("the capture ends before it is clear what this connection is")
        for sink in self._sinks:
            if isinstance(sink.direction.sink, _Lost):
                sink.direction.sink.finish()


class _Keeper:
    """The sink of a direction that is not decided yet."""

    def __init__(self, undecided: Undecided, direction: Direction) -> None:
        self._undecided = undecided
        self.direction = direction
        self.begins_missing = False
        self._any = False

    def data(self, time: int, view: memoryview) -> None:
        self._any = True
        self._undecided.note(self, time, view)

    def missing(self, time: int, n: int) -> None:
        self.begins_missing = self.begins_missing or not self._any
        self._any = True
        self._undecided.note(self, time, n)

    def end(self, time: int, *, reset: bool) -> None:
        self._undecided.note(self, time, reset)


class _Lost:
    """The sink of a direction that cannot be decoded."""

    def __init__(self, account: Account, stream: Stream, reason: str) -> None:
        self._account, self._stream, self._reason = account, stream, reason
        self._run = UnexplainedRun(account, stream)
        self._offset = 0

    def data(self, time: int, view: memoryview) -> None:
        self._run.add(time, self._offset, len(view))
        self._offset += len(view)

    def missing(self, time: int, n: int) -> None:
        self._run.end(self._reason)
        self._account.missing(time, self._stream, self._offset, n, self._reason)
        self._offset += n

    def end(self, time: int, *, reset: bool) -> None:
        self.finish()

    def finish(self) -> None:
        self._run.end(self._reason)


def _read_greeting(parts: list[memoryview | int]) -> Greeting | RemoteProtocolError | None:
    connection = Connection(Role.WORKER)
    for part in parts:
        if isinstance(part, int):
            return RemoteProtocolError(
                "Greeting", expected="a greeting", got="bytes that were not captured"
            )
        try:
            connection.receive_data(part)
            event = connection.next_event()
        except RemoteProtocolError as error:
            return error
        if isinstance(event, Greeting):
            return event
    return (
        None
        if connection.phase is Phase.GREETING
        else RemoteProtocolError("Greeting", expected="a greeting", got="something else")
    )
