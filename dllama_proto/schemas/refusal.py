"""A worker cannot go on, and says why: an extension of this project.

It stands where an ack of the worker would stand. A C++ root ends when it reads it ("Invalid ack packet", by
``readAckPacket`` of ``nn-network.cpp``), as it ends when the connection is closed instead. C++ workers send none.
"""

from __future__ import annotations

from enum import IntEnum

import construct

from dllama_proto.messages import Refusal
from dllama_proto.schemas.wire import EnumField, Record, Text

__all__ = ["REFUSAL", "REFUSAL_BYTES"]


class _Mark(IntEnum):
    """Those of the ack, ``aa`` replaced by ``ee``."""

    REFUSED = 0x0167EEEE


REFUSAL_BYTES = _Mark.REFUSED.to_bytes(4, "little")
"""The first four bytes of a refusal, which no ack has.

Example, the same in every refusal::

    eeee6701

Size in bytes: ``4``.

Written by the worker of this project, read by :mod:`dllama_proto.dissect.root_link` and its root.
"""

REFUSAL = Record(
    Refusal,
    "mark" / construct.Rebuild(EnumField(_Mark), lambda context: _Mark.REFUSED),
    "reason" / Text(limit="refusal_length"),
)
"""Why a worker cannot go on: :data:`REFUSAL_BYTES`, then the reason for people.

Example, of a worker that serves somebody else::

    eeee6701              mark=REFUSED
    05000000 6275737900   reason="busy"

Size in bytes: ``9 + len(reason)``.

Written by the worker of this project, read by :mod:`dllama_proto.dissect.root_link` and its root.
"""
