"""The link between two workers, without a socket: slices and nothing else.

Nothing on it says where a forward begins, how many rows it has or which sync a slice belongs to: both
ends know from the root. So the caller passes on what the control packet said (``begin_forward``), and
the plan of the configuration tells the rest.
"""

from __future__ import annotations

from dllama_proto._base_connection import BaseConnection
from dllama_proto._phases import PEER_LINK, Phase, Signal
from dllama_proto.errors import LocalProtocolError
from dllama_proto.events import Event, NoEvent, SliceData
from dllama_proto.sync_plan import LinkPlan

__all__ = ["PeerConnection"]


class PeerConnection(BaseConnection):
    """One end of the link between two workers, as ``plan.node_index`` sees it.

    ``next_event`` returns :class:`~dllama_proto.events.SliceData` of the forward under way. A peer may be
    ahead of us: what it sends before our ``begin_forward`` is kept, and PAUSED returned.
    """

    def __init__(self, plan: LinkPlan) -> None:
        super().__init__()
        self.plan = plan
        self._plan_slices(plan)

    def begin_forward(self, batch_size: int) -> None:
        """Expect, and owe, the slices of ``batch_size`` rows: ``payload_size`` and ``unsent_size`` bytes.

        Raises LocalProtocolError while slices of the last forward are still to come or to be sent.
        """
        if self._phase is not Phase.IDLE or batch_size < 1:
            raise LocalProtocolError(
                self._phase.name,
                expected="a forward of 1 row or more, the last one being over",
                got=str(batch_size),
            )
        self._phase = PEER_LINK[self._phase].next[Signal.FORWARD]
        self._begin_slices(batch_size)

    def send(self, event: SliceData) -> memoryview:
        """Return the bytes of the next slice that we owe, and count them as sent.

        Raises LocalProtocolError where another slice comes next.
        """
        return self._send_payload(event)

    def _next_event(self) -> Event | NoEvent:
        return self._paused() if self._incoming is None else self._next_of_payload()

    def _payload_done(self) -> None:
        self._phase = PEER_LINK[self._phase].next[Signal.PAYLOAD_DONE]
