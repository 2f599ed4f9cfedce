"""The bytes of every message; payloads are the caller's."""

from __future__ import annotations

from dllama_proto.events import Ack, Event, WeightsEnd
from dllama_proto.schemas import MESSAGES
from dllama_proto.schemas.handshake import ACK_BYTES
from dllama_proto.schemas.weights import WEIGHTS_END_BYTES
from dllama_proto.schemas.wire import build_exactly

__all__ = ["write"]


def write(event: Event) -> bytes:
    """Return the bytes of a message. Raises LocalProtocolError where a value does not fit its field."""
    if isinstance(event, Ack):
        return ACK_BYTES
    if isinstance(event, WeightsEnd):
        return WEIGHTS_END_BYTES
    return build_exactly(MESSAGES[type(event)], event, type(event).__name__)
