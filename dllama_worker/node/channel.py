"""A link with the protocol on it: bytes from the socket become events, events become bytes.

Never more is read than the current message wants, so that bulk payloads go straight from the socket into the
memory where they belong.
"""

from __future__ import annotations

from typing import TypeVar

from dllama_proto.connection import Connection
from dllama_proto.events import Closed, Event, NoEvent
from dllama_proto.messages import Refusal
from dllama_proto.schemas.refusal import REFUSAL_BYTES
from dllama_worker.errors import InternalError, PeerLost, PeerRefused
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

        Raises PeerLost where the other side closed instead, PeerRefused where it is a worker that cannot go on,
        and what :meth:`wait_event` raises.
        """
        event = self.wait_event()
        self._check(event)
        if isinstance(event, Closed) or not isinstance(event, kind):
            raise PeerLost(
                self.link.name, f"closed the connection before its {kind.__name__}", hung_up=True
            )
        return event

    def send(self, event: Event) -> None:
        """Send a message. Raises PeerLost, PeerRefused, LocalProtocolError."""
        self._send(self.connection.send(event))

    def look_for_refusal(self) -> None:
        """Raise PeerRefused if the worker at the other end has refused, also while it is our turn.

        It waits for nothing but the rest of a refusal. Raises PeerLost and RemoteProtocolError where that does not
        come.
        """
        if not self.connection.may_be_refused or not self.link.peek():
            return
        # In our turn the connection wants nothing: as much as tells a refusal from anything else.
        self.connection.receive_data(self.link.receive(self.connection.n_wanted or len(REFUSAL_BYTES)))
        event = self.connection.next_event()
        if event is NoEvent.NEED_DATA:
            event = self.wait_event()
        self._check(event)

    def slices_exchanged(self) -> None:
        """Note that all slices of a forward have gone both ways, over the sockets themselves."""
        self.connection.payload_received(self.connection.payload_size)
        self.connection.payload_sent(self.connection.unsent_size)

    def send_payload(self, data: memoryview) -> None:
        """Send the payload that the last message announced, or its next part. Raises PeerLost, PeerRefused."""
        self._send(data)
        self.connection.payload_sent(len(data))

    def receive_payload_into(self, view: memoryview) -> None:
        """Fill ``view`` with the payload that the last event announced, or with its next part."""
        n = self.connection.take_payload(view)
        while n < len(view):
            received = self.link.receive_into(view[n:])
            self.connection.payload_received(received)
            n += received

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self.link.send(data)
        except PeerLost:
            # Who refuses reads no further: its reason, which came before, says more than a reset.
            self.look_for_refusal()
            raise

    def _check(self, event: Event | NoEvent) -> None:
        if isinstance(event, Refusal):
            raise PeerRefused(self.link.name, event.reason)
