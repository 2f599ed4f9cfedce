"""Every message and file as a declarative construct schema; field order is the order on the wire.

Schemas parse to the records of :mod:`dllama_proto.messages` and build from them. Every field is named, so
that programs can walk them (:mod:`dllama_proto.schemas.layout` does, to name bytes).

Below each schema stands a docstring in one form. It says what the schema is, then:

- An example in bytes: on each line hexadecimal digits, then the fields in these bytes with their values. Fields of
  raw bytes are named without a value. Where a schema must be told more than the bytes, it stands behind "with".
- A size rule, in Python, over the fields of the schema. ``size(pipes)`` are all bytes of the field ``pipes``,
  ``len(name)`` are the bytes of a text without the NUL at its end.
- Which function of the C++ program writes it, and which reads it. Of what the C++ program does not know, such as
  captures, who writes it and which module reads it.

A test parses each example, builds it again, and holds it against the size rule. So a change of a schema that its
docstring does not follow is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dllama_proto.messages import ControlPacket, Greeting, NetConfig, NodeConfig, Refusal, WeightHeader
from dllama_proto.schemas.control import CONTROL_PACKET
from dllama_proto.schemas.handshake import GREETING
from dllama_proto.schemas.net_config import NET_CONFIG
from dllama_proto.schemas.node_config import NODE_CONFIG
from dllama_proto.schemas.refusal import REFUSAL
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
        Refusal: REFUSAL,
    }
)
