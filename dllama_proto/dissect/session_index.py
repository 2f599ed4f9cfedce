"""The sessions of a capture, found by what a greeting or a connection tells.

A capture may hold thousands of them (a root that tries again every second): none is found by looking at all.
"""

from __future__ import annotations

from collections import deque

from dllama_proto.dissect.session import Session
from dllama_proto.dissect.tcp import Conversation, Direction
from dllama_proto.messages import Greeting

__all__ = ["SessionIndex"]

#: Sessions of one root that are remembered as still greeting; a root greets all workers of one before the next.
_MAX_GREETING = 64


class SessionIndex:
    """All sessions."""

    def __init__(self) -> None:
        #: In the order of their first greetings; a session's number is its place.
        self.all: list[Session] = []
        #: By the root's address: the sessions that may lack a worker, newest last.
        self._greeting: dict[str, deque[Session]] = {}
        #: By where a worker listens (host and port; None for a name): the newest session that is configured.
        self._listening: dict[tuple[str | None, int | None], Session] = {}

    def add(self, session: Session, root: str) -> None:
        """Take a new session of the root at that address."""
        self.all.append(session)
        self._greeting.setdefault(root, deque(maxlen=_MAX_GREETING)).append(session)

    def note(self, session: Session) -> None:
        """Learn where the workers of a configured session listen, again where more is known."""
        for node in session.nodes[1:]:
            if node is not None:
                end = (node.host if node.is_address else None, node.port)
                newest = self._listening.setdefault(end, session)
                if newest.number < session.number:
                    self._listening[end] = session

    def greeted(self, greeting: Greeting, dialler: Direction) -> Session | None:
        """Return the session that a greeting is one more of, the newest where several fit."""
        waiting = self._greeting.get(dialler.source)
        if waiting is None:
            return None
        for session in reversed(waiting):
            if session.takes(greeting, dialler):
                return session
        while waiting and not waiting[-1].is_joining:
            waiting.pop()
        return None

    def listening(self, conversation: Conversation) -> Session | None:
        """Return the newest configured session with a worker that a connection was dialled to."""
        end = conversation.dialler
        found = (self._listening.get((host, end.destination_port)) for host in (end.destination, None))
        return max(
            (s for s in found if s is not None and s.listener_of(conversation) is not None),
            key=lambda session: session.number,
            default=None,
        )
