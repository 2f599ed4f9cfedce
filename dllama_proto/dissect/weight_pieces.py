"""The current piece of a weight: its header, and how much of its data came (counted, not kept)."""

from __future__ import annotations

from dataclasses import dataclass

from dllama_proto.bounded_text import quoted
from dllama_proto.connection import Connection
from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import WeightEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.message_reader import MessageBytes
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.messages import WeightHeader

__all__ = ["WeightPieces"]


@dataclass(slots=True)
class _PieceAtHand:
    header: WeightHeader
    head: MessageBytes
    missing: int = 0


class WeightPieces:
    """Takes the weights of worker ``node``, piece after piece, from the root's direction.

    ``half.bulk`` is what is still to come of the data of a piece: the half counts it down by itself.
    """

    def __init__(self, session: SessionFacts, account: Account, half: Half[Connection], node: int) -> None:
        self._session = session
        self._account = account
        self._half = half
        self._node = node
        self._piece: _PieceAtHand | None = None

    def begin(self, header: WeightHeader, head: MessageBytes) -> None:
        """Expect the data that a header announces; ``head`` are the header's bytes."""
        self._piece = _PieceAtHand(header, head)
        self._half.bulk = header.n_bytes
        if not header.n_bytes:
            self._end(self._piece, head.time)

    def step(self) -> bool:
        """Go over what there is of the data; tell whether there was any."""
        piece, half = self._piece, self._half
        if piece is None:
            raise RuntimeError("bytes of a weight without a header: a bug of the decoder")
        if half.gap:
            n = min(half.bulk, half.gap)
            half.pass_gap(n, f"weight {quoted(piece.header.name)} of index {piece.header.op_index}")
            piece.missing += n
            time = half.time
        elif half.ready:
            n = min(half.bulk, half.ready)
            time = half.drop(n)
        else:
            return False
        half.bulk -= n
        if not half.bulk:
            self._end(piece, time)
        return True

    def break_off(self) -> None:
        """Report the current piece as far as it came."""
        if self._piece is not None:
            self._end(self._piece, self._half.time)

    def _end(self, piece: _PieceAtHand, time: int) -> None:
        """Report a piece, whole or as far as it came."""
        half, header, head = self._half, piece.header, piece.head
        size = header.n_bytes - half.bulk
        self._piece, half.bulk = None, 0
        if half.link.payload_size:
            half.count_payload(size)
        event = WeightEvent(
            max(time, head.time),
            head.began,
            half.stream,
            head.offset,
            len(head.raw) + size,
            head.raw,
            header,
            size,
            piece.missing,
            self._session.weight_shape(self._node, header),
        )
        self._account.explained(event, event.size - piece.missing)
