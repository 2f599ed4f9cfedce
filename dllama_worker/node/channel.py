"""A link with the protocol on it: bytes from the socket become events, events become bytes.

Never more is read than the message at hand wants, so that bulk payloads go straight from the socket into the
memory where they belong.
"""

from __future__ import annotations

from typing import TypeVar

from dllama_proto.connection import Connection
from dllama_proto.events import Closed, Event, NoEvent
from dllama_worker.errors import InternalError, PeerLost
from dllama_worker.node.transport import Link

__all__ = ["Channel"]

_E = TypeVar("_E", bound=Event)


class Channel:
    """One end of a root-worker link, for either role."""

    def __init__(self, link: Link, connection: Connection) -> None:
        self.link = link
        self.connection = connection

    def wait_event(self) -> Event:
        """Return the next message, waiting for it as long as the link's timeout says.

        A Closed event is returned when the other side ended the session where it may. Raises PeerLost where
        the link broke, RemoteProtocolError where the bytes are wrong.
        """
        while True:
            event = self.connection.next_event()
            if not isinstance(event, NoEvent):
                return event
            if event is NoEvent.PAUSED:
                raise InternalError(
                    f"{self.link.name}: waited for a message when it was our turn to send one"
                )
            data = self.link.receive(self.connection.n_wanted)
            if data:
                self.connection.receive_data(data)
            else:
                self.connection.receive_eof()

    def expect(self, kind: type[_E]) -> _E:
        """Return the next message, which the protocol allows to be of this kind only, or the end.

        Raises PeerLost where the other side closed instead, and what :meth:`wait_event` raises.
        """
        event = self.wait_event()
        if isinstance(event, Closed) or not isinstance(event, kind):
            raise PeerLost(self.link.name, f"closed the connection before its {kind.__name__}")
        return event

    def send(self, event: Event) -> None:
        """Send a message. Raises PeerLost, LocalProtocolError."""
        self.link.send(self.connection.send(event))

    def slices_exchanged(self) -> None:
        """Note that all slices of a forward have gone both ways, over the sockets themselves."""
        self.connection.payload_received(self.connection.payload_size)
        self.connection.payload_sent(self.connection.unsent_size)

    def send_payload(self, data: memoryview) -> None:
        """Send the payload that the last message announced, or its next part. Raises PeerLost."""
        self.link.send(data)
        self.connection.payload_sent(len(data))

    def receive_payload_into(self, view: memoryview) -> None:
        """Fill ``view`` with the payload that the last event announced, or with its next part."""
        n = self.connection.take_payload(view)
        while n < len(view):
            received = self.link.receive_into(view[n:])
            self.connection.payload_received(received)
            n += received
