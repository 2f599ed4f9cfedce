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
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.dissect.undecided import Undecided
from dllama_proto.messages import Greeting

__all__ = ["LinkFinder"]


class LinkFinder:
    """Finds the links among the connections of a capture, and the sessions that they belong to."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.sessions: list[Session] = []
        self.streams: list[Stream] = []
        self._undecided: dict[Conversation, Undecided] = {}
        self._decoders: list[LinkDecoder[Any]] = []
        #: Connections of which nothing can be understood.
        self._given_up: list[Undecided] = []

    # What the capture reports --------------------------------------------------------------------------

    def open(self, conversation: Conversation) -> None:
        """Take a new connection; its sinks are set, here and when it becomes clear what it is."""
        self._undecided[conversation] = Undecided(self, conversation)

    def settle(self) -> None:
        """Look at links between workers again where a forward has begun since."""
        for session in self.sessions:
            if session.has_news:
                session.has_news = False
                for decoder in session.peer_links:
                    decoder.moved(decoder.halves[0])

    def finish(self) -> None:
        """Account for everything that is left: the capture has ended."""
        self.settle()
        for undecided in list(self._undecided.values()):
            undecided.finish()
        self.settle()
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
        for session in reversed(self.sessions):
            if session.listener_of(undecided.conversation) is None or not session.is_configured:
                continue
            # All connections to the same listener get their numbers at once, in the order of dialling.
            one = undecided.conversation.dialler
            for waiting in list(self._undecided.values()):
                other = waiting.conversation.dialler
                if (one.destination, one.destination_port) == (other.destination, other.destination_port):
                    self._match(session, waiting)
            return undecided.conversation not in self._undecided
        return False

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
        self._undecided.pop(undecided.conversation, None)
        if link is LinkKind.UNKNOWN:
            self._given_up.append(undecided)

    def _start(self, undecided: Undecided, decoder: LinkDecoder[Any]) -> None:
        self._undecided.pop(undecided.conversation, None)
        self._decoders.append(decoder)
        self.streams += undecided.streams
        time = undecided.conversation.time
        self.account.emit(OpenedEvent(time, time, decoder.halves[0].stream, 0, 0, NOTHING))
        for half in decoder.halves:
            half.direction.sink = half
        undecided.replay()

    def _session_for(self, greeting: Greeting, dialler: Direction) -> Session:
        for session in reversed(self.sessions):
            if session.takes(greeting, dialler):
                return session
        session = Session(len(self.sessions), greeting, dialler, self.account.notice)
        self.sessions.append(session)
        return session
