"""Captures of a cluster's traffic to typed events: ``for event in dissect_pcap("session.pcap"): …``.

Every byte of a session is accounted for: what it says, or that it was not captured, or why it means nothing.
See ``docs/dissect.md``, and :mod:`dllama_proto.dissect.events` for what an event is.
"""

from __future__ import annotations

from dllama_proto.dissect.capture import CaptureError
from dllama_proto.dissect.dissection import Dissection, Totals, dissect_pcap
from dllama_proto.dissect.events import (
    ClosedEvent,
    FaultEvent,
    Forward,
    Kind,
    LinkKind,
    MessageEvent,
    MissingEvent,
    NoticeEvent,
    OpenedEvent,
    Place,
    SliceEvent,
    Stream,
    UnexplainedEvent,
    WeightEvent,
    WireEvent,
)
from dllama_proto.endpoint import Endpoint

__all__ = [
    "CaptureError",
    "ClosedEvent",
    "Dissection",
    "Endpoint",
    "FaultEvent",
    "Forward",
    "Kind",
    "LinkKind",
    "MessageEvent",
    "MissingEvent",
    "NoticeEvent",
    "OpenedEvent",
    "Place",
    "SliceEvent",
    "Stream",
    "Totals",
    "UnexplainedEvent",
    "WeightEvent",
    "WireEvent",
    "dissect_pcap",
]
