"""What the links of a session tell it, and ask it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dllama_proto.dissect.events import Forward, Place, Stream
from dllama_proto.events import Event
from dllama_proto.messages import ControlPacket, Size3D, WeightHeader
from dllama_proto.verify import WeightKey

__all__ = ["SessionFacts"]


class SessionFacts(Protocol):
    """One session, as its links see it."""

    number: int

    def learn(self, node: int, message: Event) -> None:
        """Learn from a message of the link between the root and worker ``node``."""

    def begin_forward(self, index: int, packet: ControlPacket, stream: Stream) -> Forward:
        """Return the forward that the ``index``-th control packet of a link begins."""

    def forward(self, index: int) -> Forward | None:
        """Return a forward, or None where it has not begun."""

    def pipe_name(self, pipe_index: int) -> str:
        """Return the name of a pipe."""

    def place(self, segment_index: int) -> Place:
        """Return where in the model a segment is."""

    def weight_shape(self, node: int, header: WeightHeader) -> Size3D | None:
        """Return the shape of the weight that a piece belongs to."""

    def weights_of(self, node: int) -> Mapping[WeightKey, int]:
        """Return the weights of a node, and their sizes in bytes."""
