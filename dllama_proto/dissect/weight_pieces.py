"""The piece of a weight at hand: its header, and how far its data, which is counted and not kept, has come."""

from __future__ import annotations

from dataclasses import dataclass

from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import WeightEvent
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.message_reader import MessageBytes
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.messages import WeightHeader

__all__ = ["WeightPieces"]


@dataclass(slots=True)
class _Piece:
    header: WeightHeader
    head: MessageBytes
    missing: int = 0


class WeightPieces:
    """Takes the weights of worker ``node``, piece after piece; ``half.bulk`` counts what is still to come."""

    def __init__(self, session: SessionFacts, account: Account, node: int) -> None:
        self._session = session
        self._account = account
        self._node = node
        self._piece: _Piece | None = None

    def begin(self, half: Half, header: WeightHeader, head: MessageBytes) -> None:
        """Expect the data that a header announces."""
        self._piece = _Piece(header, head)
        half.bulk = header.n_bytes
        if not half.bulk:
            self._end(half, self._piece, head.time)

    def step(self, half: Half) -> bool:
        """Go over what there is of the data; tell whether there was any."""
        piece = self._piece
        if piece is None:
            raise RuntimeError("bytes of a weight without a header: a bug of the decoder")
        if half.gap:
            n = min(half.bulk, half.gap)
            half.pass_gap(n, f"weight {piece.header.name!r} of index {piece.header.op_index}")
            piece.missing += n
            time = half.time
        elif half.ready:
            n = min(half.bulk, half.ready)
            time = half.drop(n)
        else:
            return False
        half.bulk -= n
        if not half.bulk:
            self._end(half, piece, time)
        return True

    def break_off(self, half: Half) -> None:
        """Report the piece at hand as far as it came."""
        if self._piece is not None and half.bulk:
            self._end(half, self._piece, half.time)

    def _end(self, half: Half, piece: _Piece, time: int) -> None:
        """Report a piece, whole or as far as it came."""
        self._piece = None
        header, head = piece.header, piece.head
        size = header.n_bytes - half.bulk
        half.bulk = 0
        if half.link.payload_size:
            half.count_payload(size)
        event = WeightEvent(
            time,
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
