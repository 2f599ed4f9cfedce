"""Joining: the root's greeting, and the ack that also punctuates everything after it.

Written by ``NnNetwork::connect``, read by ``NnNetwork::serve``; the ack by ``writeAckPacket`` and
``readAckPacket`` (all ``nn-network.cpp``).
"""

from __future__ import annotations

from dllama_proto.messages import Greeting, Peer
from dllama_proto.schemas.wire import I32, U32, Array, Count, Record, Text, this

__all__ = ["ACK_BYTES", "ACK_NUMBER", "GREETING", "PEER"]

#: C++ ``ACK``.
ACK_NUMBER = 23571114

#: The ack on the wire, a ``u32``.
ACK_BYTES = ACK_NUMBER.to_bytes(4, "little")

PEER = Record(
    Peer,
    "host" / Text(limit="host_length"),
    "port" / I32,
)

GREETING = Record(
    Greeting,
    "n_sockets" / Count("peers", plus=1, limit="n_sockets"),
    "worker_index" / U32,
    "peers" / Array(this.n_sockets - 1, PEER),
)
