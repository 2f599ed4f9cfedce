"""What every connection shares: received bytes, the end of the stream, payloads that pass it by.

Bulk bytes (weights, slices) need not go through ``receive_data``: a caller may take over the payload,
receive it from its socket straight into its own memory, and only report the count. The same holds for
sending.
"""

from __future__ import annotations

from dllama_proto._buffer import ReceiveBuffer
from dllama_proto._payload import SlicePayload, SliceSchedule, WeightPayload
from dllama_proto._phases import Phase
from dllama_proto.errors import LocalProtocolError, RemoteProtocolError
from dllama_proto.events import NEED_DATA, PAUSED, Closed, Event, NoEvent, PayloadChunk, SliceData
from dllama_proto.formatting import counted
from dllama_proto.sync_plan import LinkPlan, Transfer

__all__ = ["BaseConnection"]


class BaseConnection:
    """Base of the connections between root and worker and between two workers."""

    def __init__(self) -> None:
        self._phase = Phase.IDLE
        self._buffer = ReceiveBuffer()
        self._at_eof = False
        self._failure: RemoteProtocolError | None = None
        self._incoming: WeightPayload | SlicePayload | None = None
        self._outgoing: WeightPayload | SlicePayload | None = None
        self._incoming_slices = self._outgoing_slices = SliceSchedule(())

    @property
    def phase(self) -> Phase:
        """What comes next on this link."""
        return self._phase

    # Receiving ------------------------------------------------------------------------------------

    @property
    def n_wanted(self) -> int:
        """Bytes that would complete the current piece; 0 where it is there, or where none is due.

        Whoever reads at most this many bytes never reads past the current message, so the payload behind
        it is still in the socket and can be received in place.
        """
        return 0 if self._failure else max(0, self._piece_size() - len(self._buffer))

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Store bytes that came from the other side. Nothing is parsed: ask ``next_event``.

        ``bytes`` are kept without a copy. Raises LocalProtocolError after ``receive_eof``.
        """
        if self._at_eof:
            raise LocalProtocolError(self._phase.name, expected="nothing after the end", got="more bytes")
        self._buffer.feed(data)

    def receive_eof(self) -> None:
        """Note that the other side has closed its direction: nothing follows what was received."""
        self._at_eof = True

    def next_event(self) -> Event | NoEvent:
        """Return what the bytes received so far mean: the next event, or NEED_DATA, or PAUSED.

        PAUSED says that it is our turn: nothing can be understood before something has been sent (on a
        link between workers: before ``begin_forward``). Once the other side has closed, and everything
        before that was understood, it is :class:`Closed`, also when asked again.

        Raises RemoteProtocolError where the other side broke the protocol, or went away in the middle of a
        message; the link is then unusable and every further call raises the same again. Raises
        LocalProtocolError where the caller took a part of a slice and left the rest. Any other exception
        is a bug of this library.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next_event()
        except RemoteProtocolError as error:
            self._failure = error
            self._phase = Phase.BROKEN
            self._incoming = self._outgoing = None
            raise

    # Payload from the other side ------------------------------------------------------------------

    @property
    def payload_size(self) -> int:
        """Bytes of the announced payload still to come: a weight piece, or all slices of this forward."""
        return 0 if self._incoming is None else self._incoming.remaining

    @property
    def next_slice(self) -> tuple[Transfer, int, int] | None:
        """The slice that the next payload byte belongs to: transfer, row, and byte within it."""
        if not isinstance(self._incoming, SlicePayload) or not self._incoming.remaining:
            return None
        return self._incoming.place()

    def take_payload(self, view: memoryview) -> int:
        """Move payload bytes that have already arrived to the start of ``view``; return how many.

        For a caller who receives the payload itself: take first, receive the rest from the socket into
        ``view[n:]``, then report that with ``payload_received``. ``view`` is a flat view of bytes; no more
        than ``payload_size`` is moved.
        """
        n = self._buffer.take_into(view[: self.payload_size])
        self._count_received(n)
        return n

    def payload_received(self, n: int) -> None:
        """Note that the caller received the next ``n`` bytes of the payload itself.

        Raises LocalProtocolError where that is more than ``payload_size``, or where payload bytes still
        wait in the buffer (``take_payload`` comes first, or the order of bytes would be lost).
        """
        if not 0 <= n <= self.payload_size:
            raise LocalProtocolError(
                self._place()[0], expected=f"at most {self.payload_size} payload bytes", got=str(n)
            )
        if n and len(self._buffer):
            raise LocalProtocolError(
                self._place()[0],
                expected="take_payload first",
                got=f"{counted(len(self._buffer), 'byte')} left in the buffer",
            )
        self._count_received(n)

    # Payload to the other side --------------------------------------------------------------------

    @property
    def unsent_size(self) -> int:
        """Bytes of payload that we still owe: a weight piece, or all slices of this forward."""
        return 0 if self._outgoing is None else self._outgoing.remaining

    def payload_sent(self, n: int) -> None:
        """Note that the caller has written the next ``n`` bytes of the payload to its socket itself.

        Raises LocalProtocolError where that is more than ``unsent_size``.
        """
        if not 0 <= n <= self.unsent_size:
            raise LocalProtocolError(
                self._phase.name, expected=f"at most {self.unsent_size} payload bytes", got=str(n)
            )
        if self._outgoing is not None:
            self._outgoing.advance(n)
            self._payload_moved()

    # For subclasses -------------------------------------------------------------------------------

    def _next_event(self) -> Event | NoEvent:
        raise NotImplementedError

    def _payload_done(self) -> None:
        """Enter the phase that follows the last byte of a payload, in every direction that has one."""
        raise NotImplementedError

    def _plan_slices(self, plan: LinkPlan) -> None:
        """Learn what every forward moves over this link."""
        self._incoming_slices = SliceSchedule(plan.receives)
        self._outgoing_slices = SliceSchedule(plan.sends)

    def _begin_slices(self, batch_size: int) -> None:
        """Expect, and owe, the slices of a forward."""
        self._incoming = SlicePayload(self._incoming_slices, batch_size)
        self._outgoing = SlicePayload(self._outgoing_slices, batch_size)
        self._payload_moved()

    def _payload_moved(self) -> None:
        """Forget payloads whose last byte has been counted, and with the last of them end the phase."""
        if self._incoming is not None and not self._incoming.remaining:
            self._incoming = None
        if self._outgoing is not None and not self._outgoing.remaining:
            self._outgoing = None
        if self._incoming is None and self._outgoing is None:
            self._payload_done()

    def _piece_size(self) -> int:
        """Return the size of the piece being read, what has arrived of it included; 0 for none."""
        return 0 if self._incoming is None else self._incoming.piece_remaining

    def _place(self) -> tuple[str, int | None]:
        """Name what is being read: its path, and the byte of the message that comes next."""
        return (self._phase.name if self._incoming is None else self._incoming.path()), None

    def _count_received(self, n: int) -> None:
        if self._incoming is not None:
            self._incoming.advance(n)
            self._payload_moved()

    def _next_of_payload(self) -> PayloadChunk | SliceData | NoEvent:
        """Return what has arrived of a weight piece, or the next slice once all of it is there."""
        if isinstance(self._incoming, WeightPayload):
            offset = self._incoming.offset
            data = self._buffer.take_some(self._incoming.remaining)
            if not data:
                return self._need_data()
            self._count_received(len(data))
            return PayloadChunk(offset, data)
        if self._incoming is None:
            return PAUSED
        transfer, row, byte = self._incoming.place()
        if byte:
            raise LocalProtocolError(
                self._incoming.path(),
                expected=f"the slice's other {counted(transfer.size - byte, 'byte')} to be taken as well",
                got="next_event",
            )
        piece = self._buffer.take(transfer.size)
        if piece is None:
            return self._need_data()
        self._count_received(len(piece))
        return SliceData(transfer, row, piece)

    def _send_payload(self, event: PayloadChunk | SliceData) -> memoryview:
        """Check that this is what comes next of the payload we owe, and count it as sent."""
        payload = self._outgoing
        if isinstance(event, SliceData):
            due = isinstance(payload, SlicePayload) and payload.remaining > 0
            fits = due and payload.place() == (event.transfer, event.row, 0)  # type: ignore[union-attr]
            fits = fits and len(event.data) == event.transfer.size
        else:
            fits = isinstance(payload, WeightPayload) and payload.offset == event.offset
            fits = fits and len(event.data) <= self.unsent_size
        if not fits:
            raise LocalProtocolError(
                self._phase.name,
                expected="nothing"
                if payload is None
                else f"{payload.path()}, {counted(payload.remaining, 'byte')}",
                got=f"{type(event).__name__} of {counted(len(event.data), 'byte')}",
            )
        self.payload_sent(len(event.data))
        return event.data

    def _need_data(self) -> NoEvent:
        """Return NEED_DATA. Raises RemoteProtocolError where none will come."""
        if not self._at_eof:
            return NEED_DATA
        path, offset = self._place()
        raise RemoteProtocolError(
            path,
            expected=counted(self.n_wanted, "more byte"),
            got="the end of the stream",
            offset=offset,
            hint="the connection was closed in the middle of a message",
        )

    def _paused(self) -> Closed | NoEvent:
        """Return PAUSED, or that the other side is gone."""
        return Closed(self._phase) if self._at_eof and not len(self._buffer) else PAUSED
