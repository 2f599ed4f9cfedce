"""What begins a forward, and what ends a session."""

from __future__ import annotations

from dllama_proto.messages import ControlPacket
from dllama_proto.schemas.wire import U32, Record

__all__ = ["CONTROL_PACKET"]

CONTROL_PACKET = Record(
    ControlPacket,
    "position" / U32,
    "batch_size" / U32,
)
"""Begins a forward of ``batch_size`` rows from ``position``; a batch size of 0 ends the session.

Example, from a recording: the second batch of a prompt::

    20000000 17000000  position=32, batch_size=23

Size in bytes: ``8``.

Written by ``RootLlmInference::forward`` and ``finish``, read by ``WorkerLlmInference::tryReadControlPacket``
(``app.cpp``); the struct is ``LlmControlPacket`` of ``app.hpp``.
"""
