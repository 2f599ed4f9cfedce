"""Every message and file as a declarative construct schema; field order is the order on the wire.

Schemas parse to the records of :mod:`dllama_proto.messages` and build from them. Every field is named, so
that programs can walk them (:mod:`dllama_proto.schemas.layout` does, to name bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, WeightHeader
from dllama_proto.schemas.control import CONTROL_PACKET
from dllama_proto.schemas.handshake import GREETING
from dllama_proto.schemas.net_config import NET_CONFIG
from dllama_proto.schemas.node_config import NODE_CONFIG
from dllama_proto.schemas.weights import WEIGHT_HEADER
from dllama_proto.schemas.wire import Record

__all__ = ["MESSAGES"]

#: The schema of every message that has fields.
MESSAGES: Mapping[type, Record[Any]] = MappingProxyType(
    {
        Greeting: GREETING,
        NetConfig: NET_CONFIG,
        NodeConfig: NODE_CONFIG,
        WeightHeader: WEIGHT_HEADER,
        ControlPacket: CONTROL_PACKET,
    }
)
