"""Who is who: connections of a capture become links of sessions, and links tell what the session needs.

A connection whose dialler begins with a greeting is the link between a root and a worker. Links between
workers have no greeting: they are found by the addresses that the root dialled and the peer lists it sent,
once something is said on them. Where several nodes share an address, who dialled is told by the order of
dialling, as the C++ program does (``NnNetwork::serve``).
"""

from __future__ import annotations

from typing import Any

from dllama_proto.dissect.account import NOTHING, Account
from dllama_proto.dissect.events import LinkKind, OpenedEvent, Stream
from dllama_proto.dissect.links import LinkDecoder
from dllama_proto.dissect.peer_link import PeerLinkDecoder
from dllama_proto.dissect.root_link import RootLinkDecoder
from dllama_proto.dissect.session import Session
from dllama_proto.dissect.session_index import SessionIndex
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.dissect.undecided import Undecided
from dllama_proto.messages import Greeting

__all__ = ["LinkFinder"]

#: Host and port.
_End = tuple[str, int]


class LinkFinder:
    """Finds the links among the connections of a capture, and the sessions that they belong to."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._index = SessionIndex()
        #: Sessions in which a forward has begun that links between workers may wait for.
        self._begun: dict[Session, None] = {}
        self.streams: list[Stream] = []
        self._undecided = _UndecidedConnections()
        self._decoders: list[LinkDecoder[Any]] = []
        #: Connections of which nothing can be understood.
        self._given_up: list[Undecided] = []

    @property
    def sessions(self) -> list[Session]:
        """The sessions found so far."""
        return self._index.all

    # What the capture reports --------------------------------------------------------------------------

    def open(self, conversation: Conversation) -> None:
        """Take a new connection; its sinks are set, here and when it becomes clear what it is."""
        self._undecided.add(Undecided(self, conversation))

    def advance_peer_links(self) -> None:
        """Read on in links between workers where a forward has begun since the last call."""
        while self._begun:
            begun, self._begun = self._begun, {}
            for session in begun:
                for decoder in session.peer_links:
                    decoder.moved(decoder.halves[0])

    def finish(self) -> None:
        """Account for everything that is left: the capture has ended."""
        self.advance_peer_links()
        for undecided in self._undecided.all():
            undecided.finish()
        self.advance_peer_links()
        for decoder in self._decoders:
            decoder.finish()
        for undecided in self._given_up:
            undecided.finish()

    # Deciding what a connection is ---------------------------------------------------------------------

    def become_root_link(self, undecided: Undecided, dialler: Direction, greeting: Greeting) -> None:
        """Make a connection the link between a root and the worker that the greeting tells."""
        session = self._session_for(greeting, dialler)
        directions = (dialler, dialler.other)
        decoder = RootLinkDecoder(
            session, self.account, directions, undecided.streams_of(directions), greeting.worker_index + 1
        )
        session.add_root_link(decoder, greeting, dialler)
        self._start(undecided, decoder)
        if not dialler.begun:
            text = "the beginning of this connection was not captured, but its greeting was"
            self.account.notice(undecided.conversation.time, undecided.streams[0], text)

    def become_peer_link(self, undecided: Undecided) -> bool:
        """Make a connection a link between workers, if it can be one; tell whether it is."""
        session = self._index.listening(undecided.conversation)
        if session is None:
            return False
        # All connections to the same listener get their numbers at once, in the order of dialling.
        for waiting in self._undecided.beside(undecided):
            self._match(session, waiting)
        return undecided not in self._undecided

    def _match(self, session: Session, undecided: Undecided) -> None:
        if undecided.is_closed and not undecided.has_data:
            return
        plan = session.match(undecided.conversation)
        if plan is None:
            return
        dialler = undecided.conversation.dialler
        directions = (dialler, dialler.other)
        decoder = PeerLinkDecoder(session, self.account, directions, undecided.streams_of(directions), plan)
        session.peer_links.append(decoder)
        self._start(undecided, decoder)

    def leave(self, undecided: Undecided, link: LinkKind) -> None:
        """Say that a connection is none of ours, or that nothing can be said of it."""
        for stream in undecided.streams:
            stream.link = link
        self._undecided.discard(undecided)
        if link is LinkKind.UNKNOWN:
            self._given_up.append(undecided)

    def _start(self, undecided: Undecided, decoder: LinkDecoder[Any]) -> None:
        self._undecided.discard(undecided)
        self._decoders.append(decoder)
        self.streams += undecided.streams
        time = undecided.conversation.time
        self.account.emit(OpenedEvent(time, time, decoder.halves[0].stream, 0, 0, NOTHING))
        for half in decoder.halves:
            half.direction.sink = half
        undecided.replay()

    def _session_for(self, greeting: Greeting, dialler: Direction) -> Session:
        session = self._index.greeted(greeting, dialler)
        if session is None:
            session = Session(len(self.sessions), greeting, dialler, self.account.notice, self)
            self._index.add(session, dialler.source)
        return session

    def configured(self, session: Session) -> None:
        """Learn that links between the workers of a session can be found now."""
        self._index.note(session)

    def forward_began(self, session: Session) -> None:
        """Learn that links between the workers of a session may go on."""
        self._begun[session] = None


class _UndecidedConnections:
    """Connections of which it isn't clear yet what they are, in the order in which they were opened."""

    def __init__(self) -> None:
        self._all: dict[Undecided, None] = {}
        #: By either end: who dialled may turn out only later.
        self._by_end: dict[_End, dict[Undecided, None]] = {}

    def __contains__(self, undecided: Undecided) -> bool:
        return undecided in self._all

    def all(self) -> list[Undecided]:
        """Return all of them."""
        return list(self._all)

    def add(self, undecided: Undecided) -> None:
        """Take a new one."""
        self._all[undecided] = None
        for end in _ends(undecided):
            self._by_end.setdefault(end, {})[undecided] = None

    def discard(self, undecided: Undecided) -> None:
        """Leave one out that is decided, if it is still here."""
        if self._all.pop(undecided, self) is self:
            return
        for end in _ends(undecided):
            there = self._by_end[end]
            del there[undecided]
            if not there:
                del self._by_end[end]

    def beside(self, undecided: Undecided) -> list[Undecided]:
        """Return those that were dialled to the same listener as one of them, itself included."""
        end = _listener(undecided)
        return [other for other in self._by_end.get(end, ()) if _listener(other) == end]


def _ends(undecided: Undecided) -> set[_End]:
    dialler = undecided.conversation.dialler
    return {(dialler.source, dialler.source_port), (dialler.destination, dialler.destination_port)}


def _listener(undecided: Undecided) -> _End:
    dialler = undecided.conversation.dialler
    return dialler.destination, dialler.destination_port
