"""Joining: the root's greeting, and the ack that also punctuates everything after it."""

from __future__ import annotations

from dllama_proto.messages import Greeting, Peer
from dllama_proto.schemas.wire import I32, U32, Array, Count, Record, Text, this

__all__ = ["ACK_BYTES", "ACK_NUMBER", "GREETING", "PEER"]

#: C++ ``ACK``.
ACK_NUMBER = 23571114

ACK_BYTES = ACK_NUMBER.to_bytes(4, "little")
"""The ack on the wire: :data:`ACK_NUMBER` as a ``u32``.

Example, the same in every session::

    aaaa6701

Size in bytes: ``4``.

Written by ``writeAckPacket``, read by ``readAckPacket`` (``nn-network.cpp``).
"""

PEER = Record(
    Peer,
    "host" / Text(limit="host_length"),
    "port" / I32,
)
"""Where another worker listens. The host is a name or an address.

Example, from a recording::

    0a000000 3132372e302e302e3100  host="127.0.0.1"
    27520000                       port=21031

Size in bytes: ``9 + len(host)``.

Written by ``NnNetwork::connect``, read by ``NnNetwork::serve`` (``nn-network.cpp``).
"""

GREETING = Record(
    Greeting,
    "n_sockets" / Count("peers", plus=1, limit="n_sockets"),
    "worker_index" / U32,
    "peers" / Array(this.n_sockets - 1, PEER),
)
"""What the root says first to each worker: who the other workers are, in the root's order.

Example, the first of two workers is told of the second::

    02000000 00000000              n_sockets=2, worker_index=0
    0a000000 3132372e302e302e3100  host="127.0.0.1"
    27520000                       port=21031

Size in bytes: ``8 + size(peers)``.

Written by ``NnNetwork::connect``, read by ``NnNetwork::serve`` (``nn-network.cpp``).
"""
