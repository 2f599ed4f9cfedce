"""The link between the root and a worker: messages, and between them weights and slices.

An ack is known even when it was not captured. Where the header of a weight is missing, the next one is looked
for. Any other message says what only it can say: without it the link is lost until the next handshake.

A refusal may come while the root still speaks; what the root says after it is not understood by anybody.
"""

from __future__ import annotations

from dllama_proto._phases import ACK_PHASES, Phase, Role
from dllama_proto.connection import Connection
from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import LinkKind, Message, MessageEvent, Stream
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.links import LinkDecoder
from dllama_proto.dissect.message_reader import MessageReader
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.dissect.tcp import Direction
from dllama_proto.dissect.weight_pieces import WeightPieces
from dllama_proto.dissect.weight_resync import UNKNOWN_WEIGHTS, Outcome, WeightResync
from dllama_proto.errors import RemoteProtocolError
from dllama_proto.events import NEED_DATA, Ack, Event, NoEvent, WeightsEnd
from dllama_proto.messages import ControlPacket, Refusal, WeightHeader
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.refusal import REFUSAL_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES

__all__ = ["RootLinkDecoder"]

#: After which message nothing is understood.
_LAST_WORDS = {Phase.CLOSED: "a session ends with its stop packet", Phase.REFUSED: "the worker has refused"}


class RootLinkDecoder(LinkDecoder[Connection]):
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
        # What the root says, a worker receives; and the other way round.
        receivers = (Connection(Role.WORKER), Connection(Role.ROOT))
        super().__init__(session, account, directions, streams, receivers)
        self.node = node
        streams[0].sender = streams[1].receiver = 0
        streams[1].sender = streams[0].receiver = node
        self._messages = {half: MessageReader(half, account) for half in self.halves}
        self._weights = WeightPieces(session, account, self.halves[0], node)
        #: Set while the header of the next weight is looked for.
        self._resync: WeightResync | None = None

    # Messages ------------------------------------------------------------------------------------------

    def _message(self, half: Half[Connection]) -> bool:
        if half.bulk:
            return self._weights.step()
        if self._resync is not None:
            return self._look(self._resync, half)
        if (last := _LAST_WORDS.get(half.link.phase)) is not None:
            self._lose(half, last)
            return True
        start = half.offset
        try:
            event = self._messages[half].read()
        except RemoteProtocolError as error:
            self._messages[half].fault(error)
            self._lose(half, f"{error.path} breaks the protocol")
            return True
        if not isinstance(event, NoEvent):
            self._received(half, event)
            return True
        if event is not NEED_DATA:
            # It is the other side's turn.
            return self._refuses(half) or self._assume(half.other)
        if half.pending > half.ready:
            self._bridge_gap(half)
            return True
        return half.offset > start

    def _received(self, half: Half[Connection], event: Event) -> None:
        """Report a whole message, and do what follows from it."""
        head = self._messages[half].whole()
        forward = None
        if isinstance(event, ControlPacket) and not event.is_stop:
            forward = self._session.begin_forward(self._slices.n_forwards, event, half.stream)
            self._slices.begin(forward)
        self._relay(half, event)
        if isinstance(event, Refusal):
            self._break_off(half.other, _LAST_WORDS[Phase.REFUSED])
        if isinstance(event, WeightHeader):
            self._weights.begin(event, head)
            return
        if not isinstance(event, Message):
            raise RuntimeError(f"{type(event).__name__} where a message was due: a bug of the phase table")
        size = len(head.raw)
        self._account.explained(
            MessageEvent(head.time, head.began, half.stream, head.offset, size, head.raw, event, forward),
            size,
        )

    def _refuses(self, half: Half[Connection]) -> bool:
        """Begin to read a refusal that comes while it is the root's turn; tell whether one does."""
        refuses = half.other.link.may_refuse and half.begins_with(REFUSAL_BYTES)
        if refuses:
            self._messages[half].begin(len(REFUSAL_BYTES))
        return refuses

    def _relay(self, half: Half[Connection], event: Event) -> None:
        """Tell the sender's connection what it has sent, and the session."""
        half.other.link.send(event)
        self._session.learn(self.node, event)

    # What was not captured -----------------------------------------------------------------------------

    def _bridge_gap(self, half: Half[Connection]) -> None:
        """Go on where the next bytes of a message are missing, as far as it is known what they said."""
        phase = half.link.phase
        if phase in ACK_PHASES and half.gap >= len(ACK_BYTES):
            half.pass_gap(len(ACK_BYTES), f"Ack({ACK_PHASES[phase].name})")
            self._receive_as_known(half, ACK_BYTES)
        elif phase is Phase.WEIGHTS:
            self._messages[half].give_up(UNKNOWN_WEIGHTS)
            half.link.restart_message()
            self._resync = WeightResync(half, self._session.weights_of(self.node), self._account)
        else:
            self._lose(half, f"bytes of {phase.name} were not captured")

    def _receive_as_known(self, half: Half[Connection], data: bytes) -> None:
        """Continue as if a message had been captured that was certainly sent, and whose bytes are known."""
        half.link.receive_data(data)
        event = half.link.next_event()
        if not isinstance(event, Ack | WeightsEnd):
            raise RuntimeError(f"{data!r} was read as {type(event).__name__}: a bug of the reader")
        self._relay(half, event)

    def _assume(self, half: Half[Connection]) -> bool:
        """Go on without a direction that the other waits for, where nothing of it was captured at all."""
        if half.direction.n_packets:
            return False
        if half.link.phase in ACK_PHASES:
            self._never_captured(half, len(ACK_BYTES), f"Ack({ACK_PHASES[half.link.phase].name})")
            self._receive_as_known(half, ACK_BYTES)
            return True
        if n := half.link.payload_size:
            self._never_captured(half, n, "slices of a forward")
            half.count_payload(n)
            return True
        return False

    def _never_captured(self, half: Half[Connection], n: int, within: str) -> None:
        self._account.missing(half.other.time, half.stream, half.offset, n, within)
        half.offset += n

    def _look(self, resync: WeightResync, half: Half[Connection]) -> bool:
        """Look for the next header of a weight; tell whether anything of this direction was understood."""
        outcome = resync.look()
        if outcome in (Outcome.FOUND, Outcome.END_MISSING):
            self._resync = None
        if outcome is Outcome.END_MISSING:
            self._receive_as_known(self.halves[0], WEIGHTS_END_BYTES)
        return outcome is not Outcome.WAITS

    # The end -------------------------------------------------------------------------------------------

    def _break_off(self, half: Half[Connection], reason: str) -> None:
        if half is self.halves[0]:
            if self._resync is not None:
                self._resync.break_off()
            self._weights.break_off()
        super()._break_off(half, reason)
        self._messages[half].give_up(reason)
