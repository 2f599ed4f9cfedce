"""What begins a forward, and what ends a session.

Written by ``RootLlmInference`` (``forward``, ``finish``), read by
``WorkerLlmInference::tryReadControlPacket`` (``app.cpp``); the struct is ``LlmControlPacket`` of
``app.hpp``.
"""

from __future__ import annotations

from dllama_proto.messages import ControlPacket
from dllama_proto.schemas.wire import U32, Record

__all__ = ["CONTROL_PACKET"]

CONTROL_PACKET = Record(
    ControlPacket,
    "position" / U32,
    "batch_size" / U32,
)
