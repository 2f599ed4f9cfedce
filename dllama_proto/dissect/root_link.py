"""The link between the root and a worker: messages, and between them weights and slices.

An ack is known even when it was not captured. Where the header of a weight is missing, the next one is looked
for. Any other message says what only it can say: without it the link is lost until the next handshake.
"""

from __future__ import annotations

from dllama_proto._phases import ACK_PHASES, Phase, Role
from dllama_proto.connection import Connection
from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import LinkKind, MessageEvent, Stream
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.links import LinkDecoder
from dllama_proto.dissect.message_reader import MessageReader
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.dissect.tcp import Direction
from dllama_proto.dissect.weight_pieces import WeightPieces
from dllama_proto.dissect.weight_resync import UNKNOWN_WEIGHTS, Outcome, WeightResync
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import (
    NEED_DATA,
    PAUSED,
    Ack,
    Closed,
    Event,
    NoEvent,
    PayloadChunk,
    SliceData,
    WeightsEnd,
)
from dllama_proto.messages import ControlPacket, WeightHeader
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES

__all__ = ["RootLinkDecoder"]


class RootLinkDecoder(LinkDecoder):
    """The link between the root (who dialled, and speaks first) and worker ``node``."""

    kind = LinkKind.ROOT

    def __init__(
        self,
        session: SessionFacts,
        account: Account,
        directions: tuple[Direction, Direction],
        streams: tuple[Stream, Stream],
        node: int,
    ) -> None:
        at_worker, at_root = Connection(Role.WORKER), Connection(Role.ROOT)
        super().__init__(session, account, directions, streams, (at_worker, at_root))
        self.node = node
        streams[0].sender = streams[1].receiver = 0
        streams[1].sender = streams[0].receiver = node
        self._from_root, self._from_worker = self.halves
        self._at_worker = at_worker
        #: Of each direction, the connection of who speaks.
        self._senders = {self._from_root: at_root, self._from_worker: at_worker}
        self._messages = {half: MessageReader(half, account) for half in self.halves}
        self._weights = WeightPieces(session, account, node)
        #: Set while the header of the next weight is looked for.
        self._resync: WeightResync | None = None

    def _step(self, half: Half) -> bool:
        return self._weights.step(half) if half.bulk else super()._step(half)

    # Messages ------------------------------------------------------------------------------------------

    def _message(self, half: Half) -> bool:
        if self._resync is not None:
            return self._look(self._resync, half)
        link, message, fed = half.link, self._messages[half], False
        while True:
            try:
                event = link.next_event()
            except RemoteProtocolError as error:
                message.fault(error)
                self._lose(half, f"{error.path} breaks the protocol")
                return True
            if event is NEED_DATA:
                if link.phase is Phase.CLOSED:
                    self._lose(half, "a session ends with its stop packet")
                    return True
                if not message.feed():
                    if half.pending == half.ready:
                        return fed
                    self._bridge_gap(half)
                    if self._lost or self._resync is not None:
                        return True
                fed = True
            elif event is PAUSED or isinstance(event, NoEvent | Closed | PayloadChunk | SliceData):
                return fed | self._assume_other(half.other)
            else:
                self._received(half, event)
                return True

    def _received(self, half: Half, event: Event) -> None:
        head = self._messages[half].whole()
        forward = None
        if isinstance(event, ControlPacket) and not event.is_stop:
            forward = self._session.begin_forward(self._slices.n_forwards, event, half.stream)
            self._slices.begin(forward)
        self._relay(half, event)
        if isinstance(event, WeightHeader):
            self._weights.begin(half, event, head)
            return
        size = len(head.raw)
        self._account.explained(
            MessageEvent(head.time, head.began, half.stream, head.offset, size, head.raw, event, forward),  # type: ignore[arg-type]
            size,
        )

    def _relay(self, half: Half, event: Event) -> None:
        """Tell the sender's connection what it has sent, and the session."""
        self._senders[half].send(event)
        self._session.learn(self.node, event)

    # What was not captured -----------------------------------------------------------------------------

    def _bridge_gap(self, half: Half) -> None:
        """Go on where the next bytes of a message are missing, as far as it is known what they said."""
        phase = half.link.phase
        if phase in ACK_PHASES and half.gap >= len(ACK_BYTES):
            half.pass_gap(len(ACK_BYTES), f"Ack({ACK_PHASES[phase].name})")
            self._assume(half, ACK_BYTES)
        elif phase is Phase.WEIGHTS:
            self._messages[half].give_up(UNKNOWN_WEIGHTS)
            self._at_worker.restart_message()
            weights = self._session.weights_of(self.node)
            self._resync = WeightResync(self._from_root, self._from_worker, weights, self._account)
        else:
            self._lose(half, f"bytes of {phase.name} were not captured")

    def _assume(self, half: Half, data: bytes) -> None:
        """Go on as if a message had been captured of which it is known that it was said, and how."""
        half.link.receive_data(data)
        event = half.link.next_event()
        if not isinstance(event, Ack | WeightsEnd):
            raise RuntimeError(f"{data!r} was read as {event!r}: a bug of the reader")
        self._relay(half, event)

    def _assume_other(self, half: Half) -> bool:
        """Go on without a direction that others wait for, where nothing of it was captured at all."""
        if half.direction.n_packets or not half.other.pending:
            return False
        if half.link.phase in ACK_PHASES:
            self._never_captured(half, len(ACK_BYTES), f"Ack({ACK_PHASES[half.link.phase].name})")
            self._assume(half, ACK_BYTES)
            return True
        if n := half.link.payload_size:
            self._never_captured(half, n, "slices of a forward")
            half.count_payload(n)
            return True
        return False

    def _never_captured(self, half: Half, n: int, within: str) -> None:
        self._account.missing(half.other.time, half.stream, half.offset, n, within)
        half.offset += n

    def _look(self, resync: WeightResync, half: Half) -> bool:
        """Look for the next header of a weight."""
        outcome = resync.look(half)
        if outcome in (Outcome.FOUND, Outcome.END_MISSING):
            self._resync = None
        if outcome is Outcome.END_MISSING:
            self._assume(self._from_root, WEIGHTS_END_BYTES)
        return outcome is not Outcome.WAITS

    # The end -------------------------------------------------------------------------------------------

    def _break_off(self, half: Half) -> None:
        if half is self._from_root:
            self._break_off_weights()
        super()._break_off(half)

    def _break_off_weights(self) -> None:
        if self._resync is not None:
            self._resync.break_off()
        self._weights.break_off(self._from_root)

    def _lose(self, half: Half, reason: str) -> None:
        self._break_off_weights()
        self._resync = None
        for each in self.halves:
            self._messages[each].give_up(reason)
        super()._lose(half, reason)

    def _explain_rest(self, half: Half, reason: str) -> None:
        self._messages[half].give_up(reason)
        super()._explain_rest(half, reason)
