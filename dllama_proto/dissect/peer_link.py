"""The link between two workers: slices of forwards that the root begins elsewhere."""

from __future__ import annotations

from dllama_proto._phases import Phase
from dllama_proto.dissect.account import Account
from dllama_proto.dissect.events import LinkKind, Stream
from dllama_proto.dissect.halves import Half
from dllama_proto.dissect.links import LinkDecoder
from dllama_proto.dissect.session_facts import SessionFacts
from dllama_proto.dissect.tcp import Direction
from dllama_proto.peer import PeerConnection
from dllama_proto.sync_plan import LinkPlan

__all__ = ["PeerLinkDecoder"]


class PeerLinkDecoder(LinkDecoder[PeerConnection]):
    """The link between two workers: ``plan`` is what a forward moves, as the one who dialled sees it."""

    kind = LinkKind.PEER

    def __init__(
        self,
        session: SessionFacts,
        account: Account,
        directions: tuple[Direction, Direction],
        streams: tuple[Stream, Stream],
        plan: LinkPlan,
    ) -> None:
        receivers = (PeerConnection(plan.reversed()), PeerConnection(plan))
        super().__init__(session, account, directions, streams, receivers)
        streams[0].sender = streams[1].receiver = plan.node_index
        streams[1].sender = streams[0].receiver = plan.peer

    def _message(self, half: Half[PeerConnection]) -> bool:
        return self._idle(half)

    def _idle(self, half: Half[PeerConnection]) -> bool:
        """Begin the next forward, if the root has."""
        if half.link.phase is not Phase.IDLE:
            return False
        forward = self._session.forward(self._slices.n_forwards)
        if forward is None:
            return False
        self._slices.begin(forward)
        for each in self.halves:
            each.link.begin_forward(forward.batch_size)
        return True
